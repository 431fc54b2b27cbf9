//! Makes, opens and checks the file.

use std::{fs, io, path::Path};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, TableError, TableHandle};

use super::{
    catch_panic::catch_panic,
    error::{damaged, database_error, io_error, storage_error},
    tables::{ABOUT, FORMAT, FORMAT_KEY, SIGNATURES, begin_write},
};
use crate::files::durable::{above, create_folder, sync_folder};
use crate::gateway::store::StoreError;

/// The memory for pages, in bytes. redb's default is 1 GiB, more than a gateway should ever need.
const CACHE_BYTES: usize = 64 << 20;

/// Checks the file without opening it. Returns `None` if it does not exist.
pub(super) fn look(path: &Path) -> Result<Option<()>, StoreError> {
    match fs::metadata(path) {
        Ok(about) if !about.is_file() => {
            Err(StoreError::NotAStore { path: path.into(), what: "it is not a regular file".into() })
        }
        // redb would make an empty database of it.
        Ok(about) if about.len() == 0 => Err(StoreError::NoBytes { path: path.into() }),
        Ok(_) => Ok(Some(())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error(path, "opened", source)),
    }
}

/// Opens an existing store, and checks the whole file.
pub(super) fn open(
    path: &Path,
    database: impl FnOnce(&Path) -> Result<Database, DatabaseError>,
) -> Result<Database, StoreError> {
    if look(path)?.is_none() {
        return Err(io_error(path, "opened", io::ErrorKind::NotFound.into()));
    }
    catch_panic(|| {
        let database = database(path).map_err(|error| database_error(path, error))?;
        check_format(path, &database)?;
        Ok(database)
    })
    .unwrap_or_else(|_| Err(damaged(path, "its checksums do not match")))
}

/// Makes a store under a temporary name, and renames it once it is complete: a crash must not leave a file that looks
/// like an empty store.
pub(super) fn create(path: &Path) -> Result<(), StoreError> {
    let failed = |source| io_error(path, "made", source);
    let folder = above(path);
    create_folder(folder).map_err(failed)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = folder.join(name);
    let made = initialize(&new).map_err(|error| storage_error(path, "made", error)).and_then(|()| {
        // Unlike a rename, a link does not replace a file that another process may have made meanwhile.
        match fs::hard_link(&new, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
            _ => sync_folder(folder).map_err(failed),
        }
    });
    // The temporary name is a second name by now, or useless; a remaining file does no harm.
    let _ = fs::remove_file(&new);
    made?;
    tracing::warn!(store = %path.display(), "there was no store; making a new one without signatures");
    Ok(())
}

pub(super) fn initialize(path: &Path) -> Result<(), redb::Error> {
    let _ = fs::remove_file(path);
    let database = builder().create(path)?;
    let transaction = begin_write(&database)?;
    transaction.open_table(SIGNATURES)?;
    transaction.open_table(ABOUT)?.insert(FORMAT_KEY, FORMAT)?;
    transaction.commit()?;
    database.close()?;
    Ok(())
}

pub(super) fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Checks that this is a store of a known format.
pub(super) fn check_format(path: &Path, database: &impl ReadableDatabase) -> Result<(), StoreError> {
    let failed = |error: redb::Error| storage_error(path, "opened", error);
    let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
    let foreign = |what: &str| StoreError::NotAStore { path: path.into(), what: what.into() };
    let about = match transaction.open_table(ABOUT) {
        Ok(table) => table,
        Err(TableError::Storage(error)) => return Err(failed(error.into())),
        Err(_) => return Err(foreign("a redb file of another program")),
    };
    let found = about.get(FORMAT_KEY).map_err(|error| failed(error.into()))?.map(|value| value.value());
    match found {
        Some(FORMAT) => {}
        Some(found) => return Err(StoreError::Format { path: path.into(), found, known: FORMAT }),
        None => return Err(foreign("a redb file of another program")),
    }
    match transaction.open_table(SIGNATURES) {
        Ok(_) => Ok(()),
        Err(TableError::Storage(error)) => Err(failed(error.into())),
        Err(error) => Err(damaged(path, &format!("table {}: {error}", SIGNATURES.name()))),
    }
}
