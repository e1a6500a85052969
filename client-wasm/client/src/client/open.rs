//! Opens a library: catalog, files, programs, and what this device remembers.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use backstitch_protocol::Problem;
use futures::lock::Mutex;

use super::learn::read_windows;
use super::{Adapted, Cancelled, Client, Options, check_cancelled};
use crate::catalog::{Address, Source, blob};
use crate::cost::CostModel;
use crate::device::{Device, Scope};
use crate::examples::Examples;
use crate::feedback::Feedback;
use crate::library::Library;
use crate::overlap::Overlap;
use crate::personal::Personal;
use crate::port::Port;
use crate::report::Progress;

impl<P: Port> Client<P> {
    /// Opens the library at `https://host/v1/libraries/name`. Without network, the last good state of this device
    /// serves.
    pub async fn open(
        port: P,
        library_url: &str,
        options: Options,
        progress: &dyn Fn(&Progress),
        cancelled: &Cancelled<'_>,
    ) -> Result<Self, Problem> {
        let report = |stage: &'static str, name: &str, loaded_bytes: u64, total_bytes: u64| {
            progress(&Progress { stage, name: name.to_owned(), loaded_bytes, total_bytes });
        };
        let address = Address::new(library_url)?;
        let scope = Scope::of(address.library());
        report("catalog", address.library(), 0, 0);
        // The browser answers what is asked together in one wait.
        let key = options.public_key.as_deref();
        let (device, source) = futures::join!(
            Device::open(&port, scope.clone()),
            Source::open(&port, address.clone(), &scope, key),
        );
        let mut source = source?;
        let catalog = source.current(&port).await?;
        check_cancelled(cancelled)?;
        let workshop = options.workshop;
        let windows = scope.key("windows");
        let (library, examples, personal, windows, feedback) = futures::try_join!(
            Library::load(&port, &address, &workshop, catalog, None, &report),
            Examples::open(&port, scope.clone()),
            Personal::open(&port, scope.clone()),
            port.load(&windows),
            Feedback::open(&port, scope.clone()),
        )?;
        check_cancelled(cancelled)?;
        let windows = read_windows(windows.as_deref());
        let secret = device.as_ref().ok().map(|d| *d.secret());
        let adapted = Adapted::of(Arc::new(library), secret.as_ref(), &personal)?;
        let cost = CostModel::default();
        let overlap = Overlap::measure(&|| port.now_ms());
        let client = Self {
            address,
            scope,
            voucher: options.voucher,
            limit: options.limit,
            workshop,
            live: RefCell::new(Arc::new(adapted)),
            cost: RefCell::new(cost),
            feedback: RefCell::new(feedback),
            overlap: Cell::new(overlap),
            activations: RefCell::default(),
            source: Mutex::new(source),
            device: Mutex::new(device),
            windows: Mutex::new(windows),
            examples: Mutex::new(examples),
            personal: Mutex::new(personal),
            training: Mutex::new(()),
            underway: RefCell::default(),
            closed: Cell::new(false),
            port,
        };
        client.declare_costs();
        report("ready", client.address.library(), 1, 1);
        Ok(client)
    }

    /// The library's built-in samples, if it has some.
    pub async fn samples(&self) -> Result<Option<Vec<u8>>, Problem> {
        self.check_open()?;
        let library = self.library();
        match &library.catalog.samples {
            Some(samples) => blob(&self.port, &self.address, samples).await.map(Some),
            None => Ok(None),
        }
    }

    /// Tells the cost model what each stage computes.
    pub(super) fn declare_costs(&self) {
        let live = self.live();
        let mut cost = self.cost.borrow_mut();
        for segment in live.library.session.segments() {
            cost.declare(&segment.name, segment.macs);
        }
        for slot in &live.slots {
            cost.declare(&super::estimate::stage_of(&slot.shared), slot.shared.compiled.macs);
        }
    }
}
