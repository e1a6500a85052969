//! How much one network may ask for: so many requests, and fewer uploads, a second.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::listen::Peer;
use super::problem::Rejection;
use crate::admission::Network;
use crate::config::Public;

/// Seconds' worth of requests that may come at once: a page loads its files together.
const BURST: u32 = 10;

/// Requests after which networks that have been quiet are forgotten.
const SWEEP: u32 = 4096;

type Limiter = DefaultKeyedRateLimiter<Network>;

/// The quotas of all networks.
pub(crate) struct Rates {
    requests: Option<Limiter>,
    uploads: Option<Limiter>,
    trusted_proxies: Vec<IpAddr>,
    seen: AtomicU32,
}

impl Rates {
    /// As configured; 0 lifts a limit.
    pub(crate) fn of(public: &Public) -> Arc<Self> {
        let limiter = |per_second| {
            let per_second = NonZeroU32::new(per_second)?;
            let burst = per_second.saturating_mul(NonZeroU32::new(BURST)?);
            Some(RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst)))
        };
        Arc::new(Self {
            requests: limiter(public.requests_per_second),
            uploads: limiter(public.uploads_per_second),
            trusted_proxies: public.trusted_proxies.clone(),
            seen: AtomicU32::new(0),
        })
    }

    fn permits(&self, network: &Network, method: &Method) -> bool {
        if self.seen.fetch_add(1, Ordering::Relaxed) % SWEEP == SWEEP - 1 {
            [&self.requests, &self.uploads].into_iter().flatten().for_each(Limiter::retain_recent);
        }
        let permits = |limiter: &Option<Limiter>| {
            limiter.as_ref().is_none_or(|limiter| limiter.check_key(network).is_ok())
        };
        permits(&self.requests) && (*method != Method::POST || permits(&self.uploads))
    }
}

/// Lets a request through, with its network beside it, or answers 429.
pub(crate) async fn limited(
    State(rates): State<Arc<Rates>>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>().map_or(IpAddr::from([0; 4]), |peer| peer.0);
    let network = Network::from(client(peer, request.headers(), &rates.trusted_proxies));
    if !rates.permits(&network, request.method()) {
        metrics::counter!("backstitch_requests_limited_total").increment(1);
        let problem = Problem::new(Code::RateLimited, "too many requests come from this network");
        return Rejection(problem.with_hint("wait as long as Retry-After says")).into_response();
    }
    request.extensions_mut().insert(network);
    next.run(request).await
}

/// Who asks: the peer, or where that is a trusted proxy, the last address in X-Forwarded-For that is none. Only what a
/// trusted proxy added is believed; the rest is the client's own word.
fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpAddr]) -> IpAddr {
    let is_stranger = |address: &IpAddr| !trusted.contains(&address.to_canonical());
    if is_stranger(&peer) {
        return peer;
    }
    let stated = headers.get_all("x-forwarded-for").iter().filter_map(|v| v.to_str().ok());
    let hops: Vec<&str> = stated.flat_map(|v| v.split(',')).map(str::trim).collect();
    let mut parsed = hops.iter().rev().map_while(|hop| hop.parse().ok());
    parsed.find(is_stranger).unwrap_or(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let (proxy, stranger) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([192, 0, 2, 7]));
        let seen = |peer, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            client(peer, &headers, &[proxy]).to_string()
        };
        assert_eq!(seen(stranger, &["198.51.100.1"]), "192.0.2.7");
        assert_eq!(seen(proxy, &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(seen(proxy, &["10.9.9.9, 198.51.100.1"]), "198.51.100.1");
        assert_eq!(seen(proxy, &["10.9.9.9", "198.51.100.1, 127.0.0.1"]), "198.51.100.1");
        assert_eq!(seen(proxy, &["198.51.100.1, nonsense"]), "127.0.0.1");
        assert_eq!(seen(proxy, &[]), "127.0.0.1");
    }

    #[test]
    fn uploads_have_a_tighter_quota_and_networks_one_each() {
        let public = Public { requests_per_second: 2, uploads_per_second: 1, ..Public::default() };
        let rates = Rates::of(&public);
        let of = |last| Network::from(IpAddr::from([192, 0, last, 1]));
        let allowed = |network, method: Method| {
            (0..100).filter(|_| rates.permits(&of(network), &method)).count()
        };
        assert_eq!(allowed(1, Method::POST), 10);
        assert_eq!(allowed(2, Method::GET), 20);
        assert_eq!(allowed(2, Method::POST), 0);
        let unlimited =
            Public { requests_per_second: 0, uploads_per_second: 0, ..Public::default() };
        let rates = Rates::of(&unlimited);
        assert!((0..1000).all(|_| rates.permits(&of(1), &Method::POST)));
    }
}
