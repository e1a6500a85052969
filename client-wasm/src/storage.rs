//! Small state by key in IndexedDB; in memory where there is none.

use std::cell::RefCell;
use std::collections::BTreeMap;

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use js_sys::{Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::Closure;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    IdbDatabase, IdbFactory, IdbObjectStore, IdbOpenDbRequest, IdbRequest, IdbTransaction,
    IdbTransactionMode,
};

const DATABASE: &str = "backstitch";
const STORE: &str = "state";

/// Bytes by key.
pub(crate) enum Storage {
    /// Borrowed to clone, or to put a new connection in place of one that was closed.
    Database(RefCell<IdbDatabase>),
    Memory(RefCell<BTreeMap<String, Vec<u8>>>),
}

impl Storage {
    /// Opens the database, or memory where the caller wants that or the browser refuses, as in some private windows.
    pub(crate) async fn open(persist: bool) -> Self {
        let database = match persist {
            true => open().await.ok(),
            false => None,
        };
        database
            .map_or_else(|| Self::Memory(RefCell::default()), |d| Self::Database(RefCell::new(d)))
    }

    pub(crate) async fn load(&self, key: &str) -> Result<Option<Vec<u8>>, Problem> {
        match self {
            Self::Memory(map) => Ok(map.borrow().get(key).cloned()),
            Self::Database(database) => {
                let (_, store) = begin(database, IdbTransactionMode::Readonly).await?;
                found(&store, key).await
            }
        }
    }

    pub(crate) async fn store(&self, key: &str, bytes: &[u8]) -> Result<(), Problem> {
        match self {
            Self::Memory(map) => {
                map.borrow_mut().insert(key.to_owned(), bytes.to_vec());
                Ok(())
            }
            Self::Database(database) => {
                let (transaction, store) = begin(database, IdbTransactionMode::Readwrite).await?;
                store.put_with_key(&Uint8Array::from(bytes), &key.into()).map_err(failed)?;
                committed(&transaction).await
            }
        }
    }

    /// Writing transactions on one store run one after the other, in whatever page they were begun (Indexed Database
    /// API 3.0, § 2.7.2), so that nobody writes between this look and this write.
    pub(crate) async fn swap(
        &self,
        key: &str,
        from: Option<&[u8]>,
        to: &[u8],
    ) -> Result<bool, Problem> {
        match self {
            Self::Memory(map) => {
                let same = map.borrow().get(key).map(Vec::as_slice) == from;
                if same {
                    map.borrow_mut().insert(key.to_owned(), to.to_vec());
                }
                Ok(same)
            }
            Self::Database(database) => {
                let (transaction, store) = begin(database, IdbTransactionMode::Readwrite).await?;
                if found(&store, key).await?.as_deref() != from {
                    return Ok(false);
                }
                store.put_with_key(&Uint8Array::from(to), &key.into()).map_err(failed)?;
                committed(&transaction).await.map(|()| true)
            }
        }
    }

    pub(crate) async fn remove(&self, key: &str) -> Result<(), Problem> {
        match self {
            Self::Memory(map) => {
                map.borrow_mut().remove(key);
                Ok(())
            }
            Self::Database(database) => {
                let (transaction, store) = begin(database, IdbTransactionMode::Readwrite).await?;
                store.delete(&key.into()).map_err(failed)?;
                committed(&transaction).await
            }
        }
    }
}

async fn open() -> Result<IdbDatabase, JsValue> {
    let factory: IdbFactory = Reflect::get(&js_sys::global(), &"indexedDB".into())?.dyn_into()?;
    let request: IdbOpenDbRequest = factory.open_with_u32(DATABASE, 1)?;
    let asked = request.clone();
    let upgrade = Closure::once_into_js(move |_: JsValue| {
        if let Ok(database) = asked.result().and_then(JsCast::dyn_into::<IdbDatabase>) {
            let _made = database.create_object_store(STORE);
        }
    });
    request.set_onupgradeneeded(upgrade.dyn_ref());
    let database: IdbDatabase = settled(&request).await?.dyn_into()?;
    // Another page that opens a newer version of the database must not have to wait for this one.
    let own = database.clone();
    database.set_onversionchange(Closure::once_into_js(move |_: JsValue| own.close()).dyn_ref());
    Ok(database)
}

/// Begins a transaction. A connection that was closed, as when the user clears the site's data, is opened again.
async fn begin(
    database: &RefCell<IdbDatabase>,
    mode: IdbTransactionMode,
) -> Result<(IdbTransaction, IdbObjectStore), Problem> {
    let begin = || {
        let transaction = database.borrow().transaction_with_str_and_mode(STORE, mode)?;
        let store = transaction.object_store(STORE)?;
        Ok((transaction, store))
    };
    match begin() {
        Err(error) if name_of(&error) == "InvalidStateError" => {
            let fresh = open().await.map_err(failed)?;
            database.replace(fresh);
            begin().map_err(failed)
        }
        begun => begun.map_err(failed),
    }
}

/// What stands under a key, within a transaction.
async fn found(store: &IdbObjectStore, key: &str) -> Result<Option<Vec<u8>>, Problem> {
    let value = settled(&store.get(&key.into()).map_err(failed)?).await.map_err(failed)?;
    Ok(value.dyn_ref::<Uint8Array>().map(Uint8Array::to_vec))
}

fn name_of(error: &JsValue) -> String {
    error.dyn_ref::<web_sys::DomException>().map(|e| e.name()).unwrap_or_default()
}

/// Waits for a request's result.
async fn settled(request: &IdbRequest) -> Result<JsValue, JsValue> {
    let promise = Promise::new(&mut |resolve, reject| {
        let (asked, failed) = (request.clone(), request.clone());
        let done = Closure::once_into_js(move |_: JsValue| {
            let _resolved =
                resolve.call1(&JsValue::UNDEFINED, &asked.result().unwrap_or(JsValue::UNDEFINED));
        });
        let broken = Closure::once_into_js(move |_: JsValue| {
            let error = failed.error().ok().flatten().map_or(JsValue::NULL, JsValue::from);
            let _rejected = reject.call1(&JsValue::UNDEFINED, &error);
        });
        request.set_onsuccess(done.dyn_ref());
        request.set_onerror(broken.dyn_ref());
    });
    JsFuture::from(promise).await
}

/// Waits until a transaction is durable.
async fn committed(transaction: &IdbTransaction) -> Result<(), Problem> {
    let promise = Promise::new(&mut |resolve, reject| {
        let done = Closure::once_into_js(move |_: JsValue| {
            let _resolved = resolve.call0(&JsValue::UNDEFINED);
        });
        transaction.set_oncomplete(done.dyn_ref());
        let own = transaction.clone();
        let broken = Closure::once_into_js(move |_: JsValue| {
            let error = own.error().map_or(JsValue::NULL, JsValue::from);
            let _rejected = reject.call1(&JsValue::UNDEFINED, &error);
        });
        transaction.set_onabort(broken.dyn_ref());
    });
    JsFuture::from(promise).await.map(|_| ()).map_err(failed)
}

fn failed(error: JsValue) -> Problem {
    let exception = error.dyn_ref::<web_sys::DomException>();
    let message = exception.map(|e| e.message()).unwrap_or_default();
    let name = name_of(&error);
    let detail = format!("IndexedDB: {name} {message}");
    match name.as_str() {
        "QuotaExceededError" => Problem::new(Code::StorageFull, detail)
            .with_hint("free some space on this device, or clear the data of other sites"),
        _ => Problem::new(Code::StorageFailed, detail)
            .with_hint("reload the page; the browser's private mode may forbid storage"),
    }
}

#[cfg(test)]
mod tests {
    use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};

    use super::*;

    wasm_bindgen_test_configure!(run_in_dedicated_worker);

    #[wasm_bindgen_test]
    async fn both_kinds_keep_replace_and_remove() {
        let database = Storage::open(true).await;
        assert!(matches!(database, Storage::Database(_)));
        for storage in [database, Storage::open(false).await] {
            storage.remove("a").await.unwrap();
            assert_eq!(storage.load("a").await.unwrap(), None);
            storage.store("a", &[1]).await.unwrap();
            storage.store("a", &[2, 3]).await.unwrap();
            assert_eq!(storage.load("a").await.unwrap().unwrap(), [2, 3]);
            storage.remove("a").await.unwrap();
            assert_eq!(storage.load("a").await.unwrap(), None);
        }
    }

    #[wasm_bindgen_test]
    async fn a_store_that_was_deleted_is_opened_anew() {
        let storage = Storage::open(true).await;
        storage.store("gone", &[1]).await.unwrap();
        let factory: IdbFactory =
            Reflect::get(&js_sys::global(), &"indexedDB".into()).unwrap().dyn_into().unwrap();
        settled(&factory.delete_database(DATABASE).unwrap()).await.unwrap();
        assert_eq!(storage.load("gone").await.unwrap(), None);
        storage.store("gone", &[2]).await.unwrap();
        assert_eq!(storage.load("gone").await.unwrap().unwrap(), [2]);
    }

    #[wasm_bindgen_test]
    async fn what_one_page_stored_another_one_reads() {
        Storage::open(true).await.store("shared", &[9]).await.unwrap();
        assert_eq!(Storage::open(true).await.load("shared").await.unwrap().unwrap(), [9]);
    }
}
