//! Server-sent events: `catalog` for everybody, `state` for operators. All of them end when the server stops.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt as _, stream};
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::wrappers::{BroadcastStream, WatchStream};

use super::App;
use crate::registry::{Issued, News};

/// A comment this often keeps proxies from closing an idle stream.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The console reads the whole state on each event, so bursts are folded into one.
const FOLD: Duration = Duration::from_millis(300);

/// News of every catalog, and at first the newest one of each library.
#[utoipa::path(get, path = "/v1/events", responses((status = 200, description = "event: catalog, data: {library, version}, id: the version", content_type = "text/event-stream")))]
pub(crate) async fn catalogs(State(app): State<App>) -> Response {
    // Subscribed before the first are read, so that none falls between.
    let news = BroadcastStream::new(app.services.catalogs.subscribe());
    let first = newest(&app);
    let again = app.clone();
    let later = news.flat_map(move |news| {
        stream::iter(match news {
            Ok(news) => vec![event(&news)],
            // Too slow: the newest of each library says all that was missed.
            Err(BroadcastStreamRecvError::Lagged(_)) => newest(&again),
        })
    });
    answer(&app, stream::iter(first).chain(later))
}

/// A tick whenever something changed that `/admin/v1/state` shows.
#[utoipa::path(get, path = "/admin/v1/events", responses((status = 200, description = "event: state, data: {change}", content_type = "text/event-stream")))]
pub(crate) async fn state(State(app): State<App>) -> Response {
    let changes = WatchStream::new(app.services.changes.subscribe()).then(|change| async move {
        tokio::time::sleep(FOLD).await;
        Event::default().event("state").data(format!("{{\"change\":{change}}}"))
    });
    answer(&app, changes)
}

fn newest(app: &App) -> Vec<Event> {
    let news = |issued: std::sync::Arc<Issued>| {
        let catalog = &issued.catalog;
        event(&News { library: catalog.library.clone(), version: catalog.version })
    };
    app.services.catalogs.all().into_iter().map(news).collect()
}

fn event(news: &News) -> Event {
    let data = serde_json::to_string(news).unwrap_or_default();
    Event::default().event("catalog").id(news.version.to_string()).data(data)
}

fn answer(app: &App, events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let mut stopping = app.stopping.clone();
    let stopped = async move { crate::server::stopped(&mut stopping).await };
    let events = events.map(Ok::<_, Infallible>).take_until(Box::pin(stopped));
    let unbuffered =
        [(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"))];
    (unbuffered, Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT))).into_response()
}
