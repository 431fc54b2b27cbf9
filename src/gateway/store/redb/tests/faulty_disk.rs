//! A disk that fails when a test says so, and stores on it.

use super::*;

/// A file whose disk does what a test tells it to.
#[derive(Debug)]
pub(super) struct Disk {
    file: FileBackend,
    fault: Arc<Mutex<Option<Fault>>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    Read,
    Write,
    /// The next write fails, and no further one.
    NextWrite,
    Sync,
    /// The next read waits until another fault, or none, is set; only that one.
    Wait,
    /// It waits.
    Waits,
}

impl Disk {
    fn check(&self, kind: Fault) -> io::Result<()> {
        match *self.fault.lock().unwrap() {
            Some(fault) if fault == kind => Err(io::Error::other(format!("{fault:?} fails"))),
            _ => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check(Fault::Read)?;
        let next = self.fault.lock().unwrap().take_if(|fault| *fault == Fault::Wait).is_some();
        if next {
            *self.fault.lock().unwrap() = Some(Fault::Waits);
            while *self.fault.lock().unwrap() == Some(Fault::Waits) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check(Fault::Write)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check(Fault::Sync)?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check(Fault::Write)?;
        if self.fault.lock().unwrap().take_if(|fault| *fault == Fault::NextWrite).is_some() {
            return Err(io::Error::other("a write fails"));
        }
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// A store on a disk that fails when told to.
pub(super) fn failing_store(path: &Path) -> (RedbStore, Arc<Mutex<Option<Fault>>>) {
    failing_store_with(path, Duration::from_millis(1))
}

/// The same; `first_backoff`: for how long nothing is written after an error.
pub(super) fn failing_store_with(path: &Path, first_backoff: Duration) -> (RedbStore, Arc<Mutex<Option<Fault>>>) {
    create(path).unwrap();
    let fault = Arc::new(Mutex::new(None));
    let (disk, own) = (Arc::clone(&fault), path.to_owned());
    let store = RedbStore::start(path, Some(ImageLimits::default()), first_backoff, move || {
        open(&own, |path| {
            let file = FileBackend::new(fs::File::options().read(true).write(true).open(path)?)?;
            // Without a cache each request comes to the disk.
            let mut builder = builder();
            builder.set_cache_size(0).create_with_backend(Disk { file, fault: Arc::clone(&disk) })
        })
    });
    (store.unwrap(), fault)
}

pub(super) async fn until_healthy(store: &RedbStore) {
    while store.health().await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
