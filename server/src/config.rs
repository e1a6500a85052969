//! The configuration: defaults, then `backstitch.toml`, then `BACKSTITCH_…` from the environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use serde::{Deserialize, Serialize};

use crate::failure::Result;

/// Everything that an operator can set. `backstitch.example.toml` explains each field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder for keys, tokens and whatever has no place of its own.
    pub data: PathBuf,
    /// `sqlite://PATH`; empty: `backstitch.db` in the data folder.
    pub store: String,
    /// `file://PATH`; empty: `blobs` in the data folder.
    pub blobs: String,
    /// Libraries to import at start: `embedded:fashion` (or another sample) or a folder with a `library.json`.
    pub libraries: Vec<String>,
    /// The plane for everybody.
    pub public: Public,
    /// The plane for operators.
    pub admin: Admin,
    /// The catalog.
    pub catalog: CatalogTimes,
    /// What is written to standard error.
    pub log: Log,
}

/// The public listener and its limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Public {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Origins of pages that may call `/v1`, besides this server's own pages.
    pub cors_origins: Vec<String>,
    /// Connections at a time; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Seconds until a request's headers must be complete.
    pub header_timeout_s: u64,
    /// Seconds until a request must be answered, uploads included.
    pub request_timeout_s: u64,
    /// Seconds that open requests get at shutdown.
    pub drain_s: u64,
}

/// The operators' listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Address and port; keep it off the internet.
    pub listen: SocketAddr,
    /// File with the bearer token; empty: `admin.token` in the data folder, made at first start.
    pub token_file: PathBuf,
}

/// Lifetime of a signed catalog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CatalogTimes {
    /// Seconds until clients refuse it.
    pub expires_after_s: u64,
    /// Seconds after which it is signed again without a change.
    pub reissue_after_s: u64,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `text` or `json`.
    pub format: LogFormat,
    /// A `tracing` filter, such as `info` or `backstitch_server=debug,warn`.
    pub filter: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines, one object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: "backstitch-data".into(),
            store: String::new(),
            blobs: String::new(),
            libraries: vec!["embedded:fashion".into()],
            public: Public::default(),
            admin: Admin::default(),
            catalog: CatalogTimes::default(),
            log: Log::default(),
        }
    }
}

impl Default for Public {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            cors_origins: Vec::new(),
            max_connections: 2048,
            header_timeout_s: 10,
            request_timeout_s: 60,
            drain_s: 20,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8081)), token_file: PathBuf::new() }
    }
}

impl Default for CatalogTimes {
    fn default() -> Self {
        Self { expires_after_s: 7 * 86_400, reissue_after_s: 86_400 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".into() }
    }
}

impl Config {
    /// Reads the file, if one is given, and the environment over it.
    pub fn load(file: Option<&Path>) -> Result<Self> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = file {
            if !file.is_file() {
                return Err(invalid(format!("there is no file {}", file.display()))
                    .with_hint("copy backstitch.example.toml and edit it"));
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        // `BACKSTITCH_PUBLIC__LISTEN` is `public.listen`.
        let config: Self = figment
            .merge(Env::prefixed("BACKSTITCH_").ignore(&["config"]).split("__"))
            .extract()
            .map_err(|cause| invalid(cause.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// A configuration for tests and demos: free ports, everything in one folder.
    pub fn in_folder(data: impl Into<PathBuf>) -> Self {
        let mut config = Self { data: data.into(), ..Self::default() };
        config.public.listen.set_port(0);
        config.admin.listen.set_port(0);
        config
    }

    /// Refuses combinations that cannot work.
    pub fn check(&self) -> Result<()> {
        self.store_path()?;
        self.blob_folder()?;
        for origin in &self.public.cors_origins {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            if host.is_none_or(|h| h.is_empty() || h.contains(['/', '*'])) {
                return Err(invalid(format!("public.cors_origins: `{origin}` is no origin"))
                    .with_hint("write scheme://host[:port], without a path or a star"));
            }
        }
        let times = &self.catalog;
        if times.reissue_after_s == 0 || times.expires_after_s < 2 * times.reissue_after_s {
            return Err(invalid(
                "catalog.expires_after_s must be at least twice catalog.reissue_after_s, which must be positive",
            ));
        }
        let public = &self.public;
        if public.max_connections == 0
            || public.header_timeout_s == 0
            || public.request_timeout_s == 0
        {
            return Err(invalid(
                "public.max_connections, header_timeout_s and request_timeout_s must be positive",
            ));
        }
        Ok(())
    }

    /// The database file.
    pub fn store_path(&self) -> Result<PathBuf> {
        at_scheme(&self.store, "sqlite://", "store", self.data.join("backstitch.db"))
    }

    /// The blob folder.
    pub fn blob_folder(&self) -> Result<PathBuf> {
        at_scheme(&self.blobs, "file://", "blobs", self.data.join("blobs"))
    }

    /// The file with the operators' token.
    pub fn token_path(&self) -> PathBuf {
        match self.admin.token_file.as_os_str().is_empty() {
            true => self.data.join("admin.token"),
            false => self.admin.token_file.clone(),
        }
    }

    /// The file with the catalog's signing key.
    pub fn key_path(&self) -> PathBuf {
        self.data.join("catalog.key")
    }

    /// How long a request may take.
    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.public.request_timeout_s)
    }
}

fn at_scheme(value: &str, scheme: &str, field: &str, default: PathBuf) -> Result<PathBuf> {
    if value.is_empty() {
        return Ok(default);
    }
    match value.strip_prefix(scheme) {
        Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
        _ => Err(invalid(format!("{field}: `{value}` is not supported"))
            .with_hint(format!("this version takes {scheme}PATH"))),
    }
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(Code::RequestInvalid, format!("configuration: {}", detail.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("backstitch.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(Some(&file))
    }

    #[test]
    fn the_example_states_every_field_with_its_default() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../backstitch.example.toml");
        assert_eq!(Config::load(Some(&example)).unwrap(), Config::default());
        let text = std::fs::read_to_string(example).unwrap();
        let defaults = serde_json::to_value(Config::default()).unwrap();
        for (key, value) in defaults.as_object().unwrap() {
            let nested = value.as_object().into_iter().flatten().map(|(k, _)| k);
            for field in nested.chain([key]) {
                assert!(text.contains(field.as_str()), "{field} is not explained");
            }
        }
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_refused() {
        assert!(load("dta = 'x'").unwrap_err().detail().contains("dta"));
        assert!(load("[public]\nlisen = '127.0.0.1:1'").is_err());
        assert!(load("store = 'postgres://x'").unwrap_err().hint().unwrap().contains("sqlite://"));
        assert!(load("[public]\ncors_origins = ['*']").is_err());
        assert!(load("[catalog]\nexpires_after_s = 10\nreissue_after_s = 10").is_err());
        assert!(Config::load(Some(Path::new("missing.toml"))).is_err());
        let config = load("data = '/d'\n[admin]\nlisten = '127.0.0.1:9'").unwrap();
        assert_eq!(config.store_path().unwrap(), Path::new("/d/backstitch.db"));
        assert_eq!(config.admin.listen.port(), 9);
    }
}
