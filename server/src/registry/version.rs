//! Immutable patch versions: rows that are only ever inserted.

use backstitch_onnx::Digest;
use backstitch_protocol::catalog::Blob;
use backstitch_protocol::id::Name;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::failure::{Failure, Result, internal, not_found};
use crate::round::Evaluation;
use crate::store::Connection;

/// One version of one patch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PatchVersion {
    /// The patch's name.
    pub patch: Name,
    /// 1, 2, 3 …
    pub version: u32,
    /// `patch.json`.
    pub manifest: Blob,
    /// `patch.onnx`.
    pub graph: Blob,
    /// `weights.safetensors`, if the version has its own.
    pub weights: Option<Blob>,
    /// Identifies the weights, wherever they stand.
    pub identity: Digest,
    /// `import`, or `round N`.
    pub source: String,
    /// The round that made it.
    pub round: Option<u64>,
    /// Contributions in that round.
    pub cohort: Option<u32>,
    /// Seconds since 1970.
    pub created_at: u64,
    /// What the release gate found.
    pub evaluation: Option<Evaluation>,
}

/// Adds a version; its number must be the next one.
pub(crate) async fn insert(
    connection: &mut Connection,
    library: &Name,
    version: &PatchVersion,
) -> Result<()> {
    let evaluation = version
        .evaluation
        .as_ref()
        .map(serde_json::to_string)
        .transpose()
        .while_doing("writing a version")?;
    sqlx::query("INSERT INTO patch_versions (library, patch, version, manifest_digest, manifest_bytes, graph_digest, graph_bytes, weights_digest, weights_bytes, identity, source, round, cohort, created_at, evaluation) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(library.as_str())
        .bind(version.patch.as_str())
        .bind(version.version)
        .bind(version.manifest.digest.to_string())
        .bind(version.manifest.bytes as i64)
        .bind(version.graph.digest.to_string())
        .bind(version.graph.bytes as i64)
        .bind(version.weights.as_ref().map(|w| w.digest.to_string()))
        .bind(version.weights.as_ref().map(|w| w.bytes as i64))
        .bind(version.identity.to_string())
        .bind(&version.source)
        .bind(version.round.map(|r| r as i64))
        .bind(version.cohort)
        .bind(version.created_at as i64)
        .bind(evaluation)
        .execute(connection)
        .await
        .while_doing(format!("adding version {} of {}", version.version, version.patch))?;
    Ok(())
}

/// The number after the last one.
pub(crate) async fn next(connection: &mut Connection, library: &Name, patch: &Name) -> Result<u32> {
    let last: Option<u32> = sqlx::query_scalar(
        "SELECT max(version) FROM patch_versions WHERE library = ? AND patch = ?",
    )
    .bind(library.as_str())
    .bind(patch.as_str())
    .fetch_one(connection)
    .await
    .while_doing("reading versions")?;
    Ok(last.unwrap_or(0) + 1)
}

/// All versions of a library, by patch and number.
pub(crate) async fn all(connection: &mut Connection, library: &Name) -> Result<Vec<PatchVersion>> {
    let rows =
        sqlx::query("SELECT * FROM patch_versions WHERE library = ? ORDER BY patch, version")
            .bind(library.as_str())
            .fetch_all(connection)
            .await
            .while_doing("reading versions")?;
    rows.iter().map(read).collect()
}

/// One version.
pub(crate) async fn find(
    connection: &mut Connection,
    library: &Name,
    patch: &Name,
    version: u32,
) -> Result<PatchVersion> {
    let row =
        sqlx::query("SELECT * FROM patch_versions WHERE library = ? AND patch = ? AND version = ?")
            .bind(library.as_str())
            .bind(patch.as_str())
            .bind(version)
            .fetch_optional(connection)
            .await
            .while_doing("reading a version")?;
    read(&row.ok_or_else(|| not_found(format!("version {version} of patch {patch} in {library}")))?)
}

fn read(row: &SqliteRow) -> Result<PatchVersion> {
    let digest =
        |column: &str| -> Result<Digest> { Ok(row.get::<String, _>(column).parse::<Digest>()?) };
    let bytes = |column: &str| row.get::<i64, _>(column) as u64;
    let weights = match row.get::<Option<String>, _>("weights_digest") {
        Some(text) => Some(Blob { digest: text.parse::<Digest>()?, bytes: bytes("weights_bytes") }),
        None => None,
    };
    Ok(PatchVersion {
        patch: Name::new(row.get::<String, _>("patch"))?,
        version: row.get::<u32, _>("version"),
        manifest: Blob { digest: digest("manifest_digest")?, bytes: bytes("manifest_bytes") },
        graph: Blob { digest: digest("graph_digest")?, bytes: bytes("graph_bytes") },
        weights,
        identity: digest("identity").map_err(|e| internal(e.to_string()))?,
        source: row.get("source"),
        round: row.get::<Option<i64>, _>("round").map(|r| r as u64),
        cohort: row.get("cohort"),
        created_at: row.get::<i64, _>("created_at") as u64,
        evaluation: row
            .get::<Option<String>, _>("evaluation")
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .while_doing("reading a version")?,
    })
}
