//! A disk that loses what was not synced.

use super::*;

/// A disk that forgets, when the power fails, what it was not told to sync, or some of it.
#[derive(Debug, Default)]
struct Volatile {
    /// As it is read.
    content: Vec<u8>,
    synced: Vec<u8>,
    /// Written since, in order.
    written: Vec<(usize, Vec<u8>)>,
    length: usize,
}

impl Volatile {
    /// Returns what is left: of what was written since the last sync, each sector or not, as `chance` has it.
    fn after_a_power_loss(&self, mut chance: impl FnMut() -> bool) -> Vec<u8> {
        const SECTOR: usize = 512;
        let mut left = self.synced.clone();
        if chance() {
            left.resize(self.length.max(left.len()), 0);
        }
        for (offset, data) in &self.written {
            for (number, sector) in data.chunks(SECTOR).enumerate() {
                let begin = offset + number * SECTOR;
                if begin + sector.len() <= left.len() && chance() {
                    left[begin..begin + sector.len()].copy_from_slice(sector);
                }
            }
        }
        left
    }
}

#[derive(Clone, Debug, Default)]
struct VolatileDisk(Arc<Mutex<Volatile>>);

impl StorageBackend for VolatileDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.0.lock().unwrap().content[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.length = usize::try_from(len).unwrap();
        let length = disk.length;
        disk.content.resize(length, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.synced = disk.content.clone();
        disk.written.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        disk.content[offset..offset + data.len()].copy_from_slice(data);
        disk.written.push((offset, data.to_vec()));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_loss_at_any_time_takes_nothing_that_was_acknowledged() {
    const LOSSES: usize = 100;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signatures.redb");
    create(&path).unwrap();
    let made = fs::read(&path).unwrap();
    let disk = VolatileDisk(Arc::new(Mutex::new(Volatile {
        length: made.len(),
        content: made.clone(),
        synced: made,
        written: Vec::new(),
    })));
    let store = {
        let disk = disk.clone();
        RedbStore::start(&path, Some(ImageLimits::default()), FIRST_BACKOFF, move || {
            builder().create_with_backend(disk.clone()).map_err(|error| database_error(Path::new("disk"), error))
        })
    };
    let store = Arc::new(store.unwrap());
    let web = image("acme/web", "1");
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    // As many as are wanted, and one more that is under way: a disk that grows without end is slow to look at.
    let wanted = Arc::new(tokio::sync::Semaphore::new(0));
    let writing = {
        let (store, web, wanted) = (Arc::clone(&store), web.clone(), Arc::clone(&wanted));
        let acknowledged = Arc::clone(&acknowledged);
        tokio::spawn(async move {
            for number in 0..2 * LOSSES + 2 {
                wanted.acquire().await.unwrap().forget();
                let one = StoredSignature { content: vec![1; 100 + 37 * number % 3000].into(), ..signature(number) };
                assert_eq!(put(&store, &web, one.clone()).await, Put::Created);
                acknowledged.lock().unwrap().push(one);
            }
        })
    };
    // A generator of its own, so that a failure can be repeated (Knuth's MMIX).
    let mut state = 1_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let lost = folder.path().join("lost.redb");
    for loss in 0..LOSSES {
        wanted.add_permits(2);
        while acknowledged.lock().unwrap().len() <= 2 * loss {
            tokio::task::yield_now().await;
        }
        // First what was acknowledged, then the disk as it is somewhat later.
        let known = acknowledged.lock().unwrap().clone();
        let odds = random() % 5;
        let left = disk.0.lock().unwrap().after_a_power_loss(|| random() % 4 < odds);
        fs::write(&lost, left).unwrap();
        let found = RedbStore::open(&lost, ImageLimits::default()).unwrap_or_else(|error| panic!("{loss}: {error}"));
        let there = found.list(&web).await.unwrap();
        for one in known {
            assert!(there.contains(&one), "loss {loss}: {} is gone", one.name.as_str());
        }
    }
    writing.abort();
}
