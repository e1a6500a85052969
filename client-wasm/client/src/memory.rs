//! The in-memory twin of a real port: a scripted server, storage that can be damaged, a clock that is set by hand.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;

use crate::port::{Cache, Port, Request, Response};

/// Answers a request in place of a server.
pub type Server = dyn Fn(&Request) -> Result<Response, Problem>;

/// A port in memory. Clones share everything, as tabs of one browser profile do.
#[derive(Clone)]
pub struct MemoryPort {
    server: Rc<Server>,
    stored: Rc<RefCell<BTreeMap<String, Vec<u8>>>>,
    cached: Rc<RefCell<BTreeMap<String, Response>>>,
    /// Requests that reached the server.
    pub requests: Rc<RefCell<Vec<Request>>>,
    /// Seconds since 1970, as the client will see them.
    pub unix_seconds: Rc<Cell<u64>>,
    /// Refuses every write while set, as a full disk does; removing goes on.
    pub full: Rc<Cell<bool>>,
    /// Milliseconds that pass from one look at the clock to the next.
    pub tick_ms: Rc<Cell<f64>>,
    seed: Rc<Cell<u64>>,
    clock_ms: Rc<Cell<f64>>,
}

impl MemoryPort {
    /// A port whose network is this function. Two ports of different seeds are two devices.
    pub fn new(
        seed: u64,
        server: impl Fn(&Request) -> Result<Response, Problem> + 'static,
    ) -> Self {
        Self {
            server: Rc::new(server),
            stored: Rc::default(),
            cached: Rc::default(),
            requests: Rc::default(),
            unix_seconds: Rc::new(Cell::new(1_800_000_000)),
            full: Rc::default(),
            tick_ms: Rc::new(Cell::new(0.01)),
            seed: Rc::new(Cell::new(seed)),
            clock_ms: Rc::default(),
        }
    }

    /// What is stored, by key; tests damage it.
    pub fn stored(&self) -> std::cell::RefMut<'_, BTreeMap<String, Vec<u8>>> {
        self.stored.borrow_mut()
    }

    /// The content cache, by address; tests damage it.
    pub fn cached(&self) -> std::cell::RefMut<'_, BTreeMap<String, Response>> {
        self.cached.borrow_mut()
    }

    fn write(&self) -> Result<(), Problem> {
        match self.full.get() {
            true => Err(Problem::new(Code::StorageFull, "the memory port was told to be full")
                .with_hint("free some space on this device")),
            false => Ok(()),
        }
    }
}

impl Port for MemoryPort {
    async fn fetch(&self, request: Request) -> Result<Response, Problem> {
        if request.cache == Cache::Immutable
            && let Some(response) = self.cached.borrow().get(&request.url)
        {
            return Ok(response.clone());
        }
        self.requests.borrow_mut().push(request.clone());
        let response = (self.server)(&request)?;
        if request.cache != Cache::Bypass && response.status == 200 {
            self.cached.borrow_mut().insert(request.url, response.clone());
        }
        Ok(response)
    }

    async fn load(&self, key: &str) -> Result<Option<Vec<u8>>, Problem> {
        Ok(self.stored.borrow().get(key).cloned())
    }

    async fn store(&self, key: &str, bytes: &[u8]) -> Result<(), Problem> {
        self.write()?;
        self.stored.borrow_mut().insert(key.to_owned(), bytes.to_vec());
        Ok(())
    }

    async fn swap(&self, key: &str, from: Option<&[u8]>, to: &[u8]) -> Result<bool, Problem> {
        // Others may come in between a look and a write, as they do in a browser.
        give_way().await;
        if self.stored.borrow().get(key).map(Vec::as_slice) != from {
            return Ok(false);
        }
        self.write()?;
        self.stored.borrow_mut().insert(key.to_owned(), to.to_vec());
        Ok(true)
    }

    async fn remove(&self, key: &str) -> Result<(), Problem> {
        self.stored.borrow_mut().remove(key);
        Ok(())
    }

    fn now_ms(&self) -> f64 {
        self.clock_ms.set(self.clock_ms.get() + self.tick_ms.get());
        self.clock_ms.get()
    }

    fn unix_seconds(&self) -> u64 {
        self.unix_seconds.get()
    }

    fn random(&self, bytes: &mut [u8]) -> Result<(), Problem> {
        let mut draws = crate::random::SplitMix::new(self.seed.get());
        bytes.iter_mut().for_each(|byte| *byte = draws.next_u64() as u8);
        self.seed.set(draws.next_u64());
        Ok(())
    }

    async fn pause(&self) {}
}

/// Ready at the second look, so that whatever else waits on this thread goes first.
async fn give_way() {
    let mut waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    #[test]
    fn two_pages_of_one_profile_keep_the_contract() {
        let port = MemoryPort::new(1, |_| Err(Problem::new(Code::NetworkFailed, "no network")));
        block_on(crate::port::contract::check(&port, &port.clone())).unwrap();
    }
}
