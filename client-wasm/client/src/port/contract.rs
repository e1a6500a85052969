//! What every port must keep, as one suite: the tests of each implementation run it on the real thing.

use backstitch_protocol::Problem;
use futures::future::join_all;

use super::{Port, update};

/// Writers at once in the suite.
const WRITERS: u32 = 8;

/// Runs the suite on two handles to one and the same device; they may be one. Returns what was broken.
///
/// Storage keeps, replaces and removes; a swap happens where nothing else was written, and only there; and of changes
/// that are made at the same time none is lost.
pub async fn check<P: Port>(one: &P, other: &P) -> Result<(), String> {
    let failed = |problem: Problem| problem.to_string();
    let holds = |right: bool, what: &str| if right { Ok(()) } else { Err(what.to_owned()) };
    let key = "contract/a/../b";
    for port in [one, other] {
        port.remove(key).await.map_err(failed)?;
    }
    holds(one.load(key).await.map_err(failed)?.is_none(), "a removed key is gone")?;
    holds(!one.swap(key, Some(b"x"), b"y").await.map_err(failed)?, "nothing is not `x`")?;
    holds(one.swap(key, None, b"1").await.map_err(failed)?, "nothing was there")?;
    holds(!other.swap(key, None, b"2").await.map_err(failed)?, "the other handle sees it")?;
    other.store(key, b"22").await.map_err(failed)?;
    holds(!one.swap(key, Some(b"1"), b"3").await.map_err(failed)?, "`22` is not `1`")?;
    holds(one.swap(key, Some(b"22"), b"").await.map_err(failed)?, "`22` was there")?;
    let found = other.load(key).await.map_err(failed)?;
    holds(found.as_deref() == Some(b"".as_slice()), "no bytes are not nothing")?;
    one.store(key, &0u32.to_le_bytes()).await.map_err(failed)?;
    let writers = (0..WRITERS).map(|i| add_one(if i % 2 == 0 { one } else { other }, key));
    for outcome in join_all(writers).await {
        outcome.map_err(failed)?;
    }
    let found = one.load(key).await.map_err(failed)?;
    holds(found.as_deref() == Some(WRITERS.to_le_bytes().as_slice()), "a change was lost")?;
    one.remove(key).await.map_err(failed)
}

async fn add_one<P: Port>(port: &P, key: &str) -> Result<(), Problem> {
    let add = |stored: Option<&[u8]>| {
        let number = stored.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
        Ok(((number + 1).to_le_bytes().to_vec(), ()))
    };
    update(port, key, add).await
}
