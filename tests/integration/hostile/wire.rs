//! HTTP by hand, from an address of one's own: what no well-behaved client library would send.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// Longer than any limit of the tests' servers.
const PATIENCE: Duration = Duration::from_secs(15);

/// A place that requests come from.
#[derive(Clone, Copy)]
pub(super) struct Network {
    pub(super) source: Ipv4Addr,
    pub(super) server: SocketAddr,
}

/// An answer; status 0 where there was none.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Self {
        let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            return Self::default();
        };
        let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Self { status, head, body: bytes[at + 4..].to_vec() }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The stable code of a problem; the status where there is none.
    pub(super) fn code(&self) -> String {
        let problem: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        let code = problem.and_then(|p| Some(p["code"].as_str()?.to_owned()));
        code.unwrap_or_else(|| self.status.to_string())
    }

    pub(super) fn header(&self, name: &str) -> Option<String> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| *found == name).map(|(_, value)| match name {
            "access-control-allow-methods" => value.to_uppercase(),
            _ => value.to_owned(),
        })
    }
}

impl Network {
    pub(super) async fn connect(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.source, 0).into())?;
        socket.connect(self.server).await
    }

    /// A line on which something was begun; none where the server closed it at once.
    pub(super) async fn begin(&self, bytes: &[u8]) -> Option<TcpStream> {
        let mut stream = self.connect().await.ok()?;
        stream.write_all(bytes).await.ok()?;
        Some(stream)
    }

    pub(super) async fn raw(&self, request: &[u8]) -> Reply {
        match self.connect().await {
            Ok(mut stream) => exchange(&mut stream, request).await,
            Err(_) => Reply::default(),
        }
    }

    pub(super) async fn get(&self, path: &str, headers: &str) -> Reply {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        self.raw(request.as_bytes()).await
    }

    pub(super) async fn post(&self, path: &str, kind: &str, body: &[u8], headers: &str) -> Reply {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.raw(&[head.as_bytes(), body].concat()).await
    }
}

/// Sends and reads to the end. A server that has refused early may close before it has read everything.
pub(super) async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &[u8],
) -> Reply {
    let mut bytes = Vec::new();
    let talk = async {
        let _refused_early = stream.write_all(request).await;
        let _cut = stream.read_to_end(&mut bytes).await;
    };
    assert!(
        tokio::time::timeout(PATIENCE, talk).await.is_ok(),
        "the server neither answers nor closes"
    );
    Reply::parse(&bytes)
}

/// Waits until the server closes the line.
pub(super) async fn ends(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let reading = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest));
    assert!(reading.await.is_ok(), "the server keeps a line open that does nothing");
}

/// A TLS client that trusts this certificate, speaks this version alone, and offers these protocols.
pub(super) fn connector(
    certificate: CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
    protocols: &[&str],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}
