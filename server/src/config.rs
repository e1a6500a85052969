//! The configuration: defaults, then `backstitch.toml`, then `BACKSTITCH_…` from the environment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use ed25519_dalek::VerifyingKey;
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
    /// Who may become a profile.
    pub enrolment: Enrolment,
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
    /// Connections of one network (IPv4 /24, IPv6 /48) at a time; 0: no limit of its own.
    pub max_connections_per_network: usize,
    /// Requests a second from one network, ten seconds' worth of them at once; 0: no limit.
    pub requests_per_second: u32,
    /// Uploads among them: contributions, tokens, reports; 0: no limit.
    pub uploads_per_second: u32,
    /// Addresses of proxies whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// TLS, where no proxy does it.
    pub tls: Tls,
    /// Seconds until a request's headers must be complete.
    pub header_timeout_s: u64,
    /// Seconds until a request must be answered, uploads included.
    pub request_timeout_s: u64,
    /// Seconds that open requests get at shutdown.
    pub drain_s: u64,
}

/// TLS 1.3 on the public listener; off while both are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// File with the certificate and its chain, PEM.
    pub certificate: PathBuf,
    /// File with the private key, PEM.
    pub key: PathBuf,
}

impl Tls {
    pub(crate) fn is_off(&self) -> bool {
        self.certificate.as_os_str().is_empty() && self.key.as_os_str().is_empty()
    }
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

/// What makes a profile, which can draw one token per release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Enrolment {
    /// New profiles an hour from one network (IPv4 /24, IPv6 /48); 0: no limit.
    pub per_network_per_hour: u32,
    /// Hex of the Ed25519 public key of the site's login; then a profile needs its voucher. Empty: open to all.
    pub voucher_key: String,
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
            enrolment: Enrolment::default(),
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
            max_connections_per_network: 256,
            requests_per_second: 50,
            uploads_per_second: 5,
            trusted_proxies: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            tls: Tls::default(),
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

impl Default for Enrolment {
    fn default() -> Self {
        Self { per_network_per_hour: 60, voucher_key: String::new() }
    }
}

impl Enrolment {
    /// The key of the site's login, if vouchers are asked for.
    pub(crate) fn voucher_key(&self) -> Result<Option<VerifyingKey>> {
        if self.voucher_key.is_empty() {
            return Ok(None);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(&self.voucher_key, &mut bytes)
            .ok()
            .and_then(|()| VerifyingKey::from_bytes(&bytes).ok())
            .map(Some)
            .ok_or_else(|| {
                invalid("enrolment.voucher_key is not the public key of an Ed25519 pair")
                    .with_hint("write its 32 bytes as 64 hex digits")
            })
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
        config.lift_network_limits();
        config
    }

    /// For tests and demos, whose devices all come from one network.
    pub(crate) fn lift_network_limits(&mut self) {
        self.enrolment.per_network_per_hour = 0;
        self.public.max_connections_per_network = 0;
        self.public.requests_per_second = 0;
        self.public.uploads_per_second = 0;
    }

    /// Refuses combinations that cannot work.
    pub fn check(&self) -> Result<()> {
        self.store_path()?;
        self.blob_folder()?;
        self.enrolment.voucher_key()?;
        for origin in &self.public.cors_origins {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            if host.is_none_or(|h| h.is_empty() || h.contains(['/', '*'])) {
                return Err(invalid(format!("public.cors_origins: `{origin}` is no origin"))
                    .with_hint("write scheme://host[:port], without a path or a star"));
            }
        }
        let tls = &self.public.tls;
        if !tls.is_off() && [&tls.certificate, &tls.key].iter().any(|p| p.as_os_str().is_empty()) {
            return Err(invalid("public.tls needs both a certificate and a key"));
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

    /// The folder of the keys.
    pub fn keys_folder(&self) -> PathBuf {
        self.data.join("keys")
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
        assert!(load("[public.tls]\ncertificate = 'c.pem'").is_err());
        assert!(load("[enrolment]\nvoucher_key = 'ab'").is_err());
        assert!(load("[catalog]\nexpires_after_s = 10\nreissue_after_s = 10").is_err());
        assert!(Config::load(Some(Path::new("missing.toml"))).is_err());
        let config = load("data = '/d'\n[admin]\nlisten = '127.0.0.1:9'").unwrap();
        assert_eq!(config.store_path().unwrap(), Path::new("/d/backstitch.db"));
        assert_eq!(config.admin.listen.port(), 9);
    }
}
