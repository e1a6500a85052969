//! TLS for the public plane: version 1.3 alone, from a certificate and a key in PEM files.

use std::path::Path;
use std::sync::Arc;

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{self, ServerConfig};

use crate::config::Tls;
use crate::failure::{Failure, Result};

/// The name of HTTP/2 in a handshake (RFC 9113, §3.2).
pub(super) const H2: &[u8] = b"h2";

/// What accepts connections, where a certificate is configured.
pub(crate) fn acceptor(tls: &Tls) -> Result<Option<TlsAcceptor>> {
    if tls.is_off() {
        return Ok(None);
    }
    let chain = chain(&tls.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .when_reading(format!("public.tls.key {}", tls.key.display()))?;
    let mut config = configured(chain, key).map_err(|cause| {
        Problem::new(Code::RequestInvalid, format!("public.tls: {cause}"))
            .with_hint("certificate and key must belong together, in PEM")
    })?;
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let what = || format!("public.tls.certificate {}", path.display());
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .when_reading(what())?
        .collect::<std::result::Result<_, _>>()
        .when_reading(what())?;
    match certificates.is_empty() {
        true => Err(Problem::new(Code::RequestInvalid, format!("{} holds none", what()))),
        false => Ok(certificates),
    }
}

fn configured(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> std::result::Result<ServerConfig, rustls::Error> {
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)
}
