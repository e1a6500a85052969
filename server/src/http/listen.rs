//! The accepting loop: `axum::serve` has no timer for headers, no limit on connections and no TLS, so this has all three.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::multiplexed;
use super::tls::H2;
use crate::admission::Network;
use crate::config::Config;
use crate::server::stopped;

/// Bytes of a request's headers; hyper refuses more with 431.
pub(super) const HEADER_BYTES: usize = 16 << 10;

/// Bounds on what clients can hold.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    max_connections: usize,
    /// 0: no limit.
    max_connections_per_network: usize,
    trusted_proxies: Vec<IpAddr>,
    pub(super) header_timeout: Duration,
    pub(super) write_timeout: Duration,
    drain: Duration,
}

impl Limits {
    /// As configured for the public plane.
    pub(crate) fn of(config: &Config) -> Self {
        let public = &config.public;
        Self {
            max_connections: public.max_connections,
            max_connections_per_network: public.max_connections_per_network,
            trusted_proxies: public.trusted_proxies.clone(),
            header_timeout: Duration::from_secs(public.header_timeout_s),
            write_timeout: config.request_timeout(),
            drain: Duration::from_secs(public.drain_s),
        }
    }
}

/// Where a connection comes from, beside every request of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Serves until `stopping` turns true, then lets open requests finish.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(limits.max_connections));
    let crowds = Crowds::new(&limits);
    let graceful = GracefulShutdown::new();
    let stopping_too = stopping.clone();
    let accept = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(cause) => {
                    // Out of file descriptors, say: let others finish.
                    tracing::warn!(%cause, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // One network that holds all it may is closed at once; the others find places.
            let Some(seat) = crowds.enter(peer) else { continue };
            let connection = Connection {
                peer,
                router: router.clone(),
                limits: limits.clone(),
                tls: tls.clone(),
                stopping: stopping_too.clone(),
            };
            let watcher = graceful.watcher();
            tokio::spawn(async move {
                connection.run(stream, watcher).await;
                drop((place, seat));
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = stopped(&mut stopping) => {}
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still open at the end of the drain");
    }
}

/// One client's line.
struct Connection {
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    tls: Option<TlsAcceptor>,
    stopping: watch::Receiver<bool>,
}

impl Connection {
    async fn run(self, stream: TcpStream, watcher: Watcher) {
        drop(stream.set_nodelay(true));
        let mut stream = TimeoutStream::new(stream);
        // Whoever does not read the answer loses the line. Reading has its own limits: headers, then the request.
        stream.set_write_timeout(Some(self.limits.write_timeout));
        let stream: Pin<Box<TimeoutStream<TcpStream>>> = Box::pin(stream);
        match self.tls.clone() {
            None => self.speak(stream, watcher).await,
            Some(acceptor) => {
                let shake =
                    tokio::time::timeout(self.limits.header_timeout, acceptor.accept(stream));
                match shake.await {
                    Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(H2) => {
                        self.multiplex(stream, watcher).await;
                    }
                    Ok(Ok(stream)) => self.speak(stream, watcher).await,
                    Ok(Err(cause)) => tracing::debug!(%cause, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                }
            }
        }
    }

    /// HTTP/2. The server waits for the line as long as the watcher lives.
    async fn multiplex(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        _watcher: Watcher,
    ) {
        let peer = Peer(self.peer.ip());
        let spoken =
            multiplexed::speak(stream, peer, self.router, &self.limits, self.stopping).await;
        if let Err(cause) = spoken {
            tracing::debug!(%cause, "a connection ended early");
        }
    }

    /// HTTP/1.1.
    async fn speak(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        watcher: Watcher,
    ) {
        let peer = Peer(self.peer.ip());
        let service = self.router.map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            request
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_header_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        if let Err(cause) = watcher.watch(connection).await {
            tracing::debug!(%cause, "a connection ended early");
        }
    }
}

/// Open connections by network.
type Open = Arc<Mutex<HashMap<Network, usize>>>;

/// Lets so many connections of one network be open at a time.
struct Crowds {
    limit: usize,
    trusted: Vec<IpAddr>,
    open: Open,
}

impl Crowds {
    fn new(limits: &Limits) -> Self {
        Self {
            limit: limits.max_connections_per_network,
            trusted: limits.trusted_proxies.clone(),
            open: Arc::default(),
        }
    }

    /// A place among the connections of the peer's network, if it has one left.
    fn enter(&self, peer: SocketAddr) -> Option<Seat> {
        let network = Network::from(peer.ip());
        if self.limit == 0 || self.trusted.contains(&peer.ip().to_canonical()) {
            return Some(Seat(None));
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(network).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Seat(Some((Arc::clone(&self.open), network))))
    }
}

/// Counts a connection until it is dropped.
struct Seat(Option<(Open, Network)>);

impl Drop for Seat {
    fn drop(&mut self) {
        let Some((open, network)) = &self.0 else { return };
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(network) {
            *count -= 1;
            if *count == 0 {
                open.remove(network);
            }
        }
    }
}
