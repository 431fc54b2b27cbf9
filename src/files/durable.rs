//! Durable files and folders, which survive a loss of power.

use std::{fs, io, path::Path};

/// Creates a folder and its missing parents. Each is on the disk before anything is put into it.
pub(crate) fn create_folder(folder: &Path) -> io::Result<()> {
    create_folder_with(folder, &sync_folder)
}

/// Creates folders as [`create_folder`] does, with another way to sync them.
pub(crate) fn create_folder_with(folder: &Path, sync: &impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    match fs::create_dir(folder) {
        Ok(()) => {}
        Err(_) if folder.is_dir() => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_folder_with(above(folder), sync)?;
            match fs::create_dir(folder) {
                // Another process created the folder first, and may not have synced it yet.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
                made => made?,
            }
        }
        Err(error) => return Err(error),
    }
    sync(above(folder))
}

/// Returns the folder that contains a path.
pub(crate) fn above(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Syncs a folder, so that its entries survive a loss of power.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_make_one_folder_at_once() {
        for _ in 0..50 {
            let base = tempfile::tempdir().unwrap();
            let folder = base.path().join("acme/web/inner");
            std::thread::scope(|scope| {
                let made: Vec<_> = (0..8).map(|_| scope.spawn(|| create_folder(&folder))).collect();
                for outcome in made {
                    outcome.join().unwrap().unwrap();
                }
            });
        }
    }
}
