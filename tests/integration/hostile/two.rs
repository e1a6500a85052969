//! HTTP/2 over the built-in TLS: many requests on one line, and lines that only hold a place.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::{Duration, Instant};

use backstitch_onnx::Digest;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::TLS13;

use super::{Bench, ONLOOKER, wire};

type Line = TlsStream<tokio::net::TcpStream>;

async fn connect(bench: &Bench, certificate: &CertificateDer<'static>) -> Line {
    let connector = wire::connector(certificate.clone(), &TLS13, &["h2", "http/1.1"]);
    let stream = bench.network(ONLOOKER).connect().await.unwrap();
    let line = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    assert_eq!(line.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    line
}

/// A client, and a task that ends when the server closes the line.
async fn client(
    line: Line,
    window: u32,
) -> (SendRequest<String>, tokio::task::JoinHandle<Result<(), hyper::Error>>) {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(window)
        .handshake(TokioIo::new(line))
        .await
        .unwrap();
    (sender, tokio::spawn(connection))
}

fn get(path: &str) -> Request<String> {
    Request::get(format!("https://localhost{path}")).body(String::new()).unwrap()
}

async fn body(answer: Response<Incoming>) -> Vec<u8> {
    let (mut body, mut bytes) = (answer.into_body(), Vec::new());
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        bytes.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
    }
    bytes
}

/// The digest of the primary that a signed catalog names.
fn primary(signed: &[u8]) -> Digest {
    let signed: serde_json::Value = serde_json::from_slice(signed).unwrap();
    let catalog: serde_json::Value =
        serde_json::from_str(signed["payload"].as_str().unwrap()).unwrap();
    catalog["primary"]["model"]["digest"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_line_carries_many_requests_and_an_idle_one_is_closed() {
    let (bench, certificate, _folder) = Bench::with_tls().await;
    let (sender, line) = client(connect(&bench, &certificate).await, 1 << 16).await;
    // More than the server takes at a time: the others wait for their turn.
    let asked = (0..120).map(|_| {
        let mut sender = sender.clone();
        tokio::spawn(async move {
            let answer = sender.send_request(get("/v1/libraries/fashion/catalog")).await.unwrap();
            assert!(answer.headers().contains_key("strict-transport-security"));
            (answer.status().as_u16(), body(answer).await)
        })
    });
    let mut answers = Vec::new();
    for answer in asked.collect::<Vec<_>>() {
        answers.push(answer.await.unwrap());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.0 == 200));
    // A large file comes whole, in pieces.
    let digest = primary(&answers[0].1);
    let path = format!("/v1/blobs/{}", digest.hex());
    let file = body(sender.clone().send_request(get(&path)).await.unwrap()).await;
    assert!(file.len() > 1 << 17);
    assert_eq!(Digest::of(&file), digest);

    let mut large = get("/v1/libraries");
    large.headers_mut().insert("x-large", "x".repeat(32 << 10).parse().unwrap());
    let refused = sender.clone().send_request(large).await;
    assert!(refused.map_or(true, |answer| answer.status() == 431), "headers have a limit");

    let started = Instant::now();
    let ended = tokio::time::timeout(Duration::from_secs(6), line).await;
    assert!(ended.is_ok(), "the server keeps a line on which nothing is asked");
    assert!(started.elapsed() < Duration::from_secs(5));
    bench.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_whose_headers_or_answers_do_not_end_is_closed() {
    let (bench, certificate, _folder) = Bench::with_tls().await;
    let mut line = connect(&bench, &certificate).await;
    // The preface, settings, and the start of the headers of stream 1 without an end (RFC 9113, §6.2).
    line.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    line.write_all(b"\0\0\x01\x01\0\0\0\0\x01\x82").await.unwrap();
    let mut rest = Vec::new();
    let reading = tokio::time::timeout(Duration::from_secs(10), line.read_to_end(&mut rest));
    assert!(reading.await.is_ok(), "the server waits for headers that do not come");

    // Asks for a file and takes nothing of it.
    let (mut sender, line) = client(connect(&bench, &certificate).await, 1 << 12).await;
    let catalog = sender.send_request(get("/v1/libraries/fashion/catalog")).await.unwrap();
    let digest = primary(&body(catalog).await);
    let path = format!("/v1/blobs/{}", digest.hex());
    let untaken = sender.send_request(get(&path)).await.unwrap();
    assert_eq!(untaken.status(), 200);
    let ended = tokio::time::timeout(Duration::from_secs(10), line).await;
    assert!(ended.is_ok(), "the server holds an answer that nobody takes");
    drop(untaken);
    bench.running.shutdown().await;
}
