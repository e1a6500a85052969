//! HTTP/2, where one line carries many requests: what ends a line that asks nothing, and one whose client does not take
//! its answers. HTTP/1.1 has a timer for headers and one for writing; neither sees into a multiplexed line.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::listen::{HEADER_BYTES, Limits, Peer};
use crate::server::stopped;

/// Requests of one line at a time. No fewer, for a client counts on so many before it has read the settings, and what
/// goes beyond them is refused (RFC 9113, §6.5.2).
const STREAMS: u32 = 100;

/// Bytes of an answer that are handed over at a time, one frame: so much of each may lie in memory for a client that
/// does not take them.
const PIECE: usize = 16 << 10;

/// Between two looks at a line.
const LOOK: Duration = Duration::from_millis(500);

/// Serves a line until its client leaves, asks nothing for a while, or does not take what it asked for.
pub(super) async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    router: Router,
    limits: &Limits,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), hyper::Error> {
    let line = Line::default();
    let service = {
        let line = line.clone();
        hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            let open = line.open();
            let answer = router.clone().oneshot(request);
            async move {
                let answer = answer.await?;
                Ok::<_, Infallible>(answer.map(|body| Answer { body, rest: Bytes::new(), open }))
            }
        })
    };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_BYTES as u32)
        // Who has gone without a word is noticed, whatever is open.
        .keep_alive_interval(limits.header_timeout)
        .keep_alive_timeout(limits.header_timeout)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stopped(&mut stopping) => {}
        () = line.is_idle_for(limits.header_timeout) => {}
        () = line.is_stuck_for(limits.write_timeout) => {
            tracing::debug!("an answer was not taken");
            return Ok(());
        }
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => ended,
        () = line.is_stuck_for(limits.write_timeout) => Ok(()),
        // What is left of the last answers is small.
        () = line.is_idle_for(limits.write_timeout) => Ok(()),
    }
}

/// What is open on a line.
#[derive(Clone)]
struct Line(Arc<Mutex<State>>);

struct State {
    /// By request, since when a piece of its answer waits to be taken; none while the server works on it.
    open: BTreeMap<u64, Option<Instant>>,
    next: u64,
    /// When the last request ended.
    idle: Instant,
}

impl Default for Line {
    fn default() -> Self {
        let state = State { open: BTreeMap::new(), next: 0, idle: Instant::now() };
        Self(Arc::new(Mutex::new(state)))
    }
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Open {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.open.insert(number, None);
        Open { line: self.clone(), number }
    }

    /// Ends when no request has been open for so long. Headers that do not come to an end are no request.
    async fn is_idle_for(&self, time: Duration) {
        self.until(|state| state.open.is_empty() && state.idle.elapsed() >= time).await;
    }

    /// Ends when a piece of an answer has waited for so long to be taken.
    async fn is_stuck_for(&self, time: Duration) {
        let waits = |since: &Option<Instant>| since.is_some_and(|since| since.elapsed() >= time);
        self.until(|state| state.open.values().any(waits)).await;
    }

    async fn until(&self, holds: impl Fn(&State) -> bool) {
        while !holds(&self.state()) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A request that is open until this is dropped.
struct Open {
    line: Line,
    number: u64,
}

impl Open {
    fn waits(&self, since: Option<Instant>) {
        self.line.state().open.insert(self.number, since);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.line.state();
        state.open.remove(&self.number);
        state.idle = Instant::now();
    }
}

/// An answer in pieces. The next one is asked for when the client has room for it.
struct Answer {
    body: Body,
    rest: Bytes,
    open: Open,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let own = &mut *self;
        own.open.waits(None);
        if own.rest.is_empty() {
            match ready!(Pin::new(&mut own.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => own.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        let piece = own.rest.split_to(own.rest.len().min(PIECE));
        own.open.waits(Some(Instant::now()));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower().saturating_add(rest));
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper.saturating_add(rest));
        }
        whole
    }
}
