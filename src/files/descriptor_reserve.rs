//! A reserve of file descriptors, for files that must be readable although connections have taken all others.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Mutex, PoisonError},
};

use rustix::io::Errno;

/// The size of the reserve. One file or folder is open at a time, and a connection may take a descriptor that was just
/// released.
const RESERVED: usize = 4;

/// The reserve of this process, which has one table of descriptors. `None`: there is no reserve.
static RESERVE: Mutex<Option<Vec<OwnedFd>>> = Mutex::new(None);

/// Fills the reserve. For servers, at their start.
pub fn reserve_descriptors() {
    RESERVE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
    refill();
}

/// Runs `read`, which opens what it reads and closes it again. If it fails because no descriptor is left, releases a
/// descriptor of the reserve and runs it again, until the reserve is empty. Fills the reserve again afterwards, as far
/// as possible.
pub(crate) fn with_reserve<T>(mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let result = loop {
        match read() {
            Err(error) if are_exhausted(&error) && give_up_one() => {}
            result => break result,
        }
    };
    refill();
    result
}

/// Returns whether the process (EMFILE) or the machine (ENFILE) has no descriptor left.
fn are_exhausted(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

fn give_up_one() -> bool {
    let mut reserve = RESERVE.lock().unwrap_or_else(PoisonError::into_inner);
    reserve.as_mut().is_some_and(|held| held.pop().is_some())
}

fn refill() {
    let mut reserve = RESERVE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(held) = reserve.as_mut() else { return };
    while held.len() < RESERVED {
        match io::stderr().as_fd().try_clone_to_owned() {
            Ok(descriptor) => held.push(descriptor),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno.raw_os_error())
    }

    #[test]
    fn the_reserve_is_given_up_for_a_read_alone_and_only_for_want_of_descriptors() {
        // The one test that fills the reserve of this process; others never run out of descriptors.
        let exhausted = || Err::<(), _>(error(Errno::MFILE));
        assert!(with_reserve(exhausted).is_err(), "nothing is reserved yet");
        reserve_descriptors();
        let held = || RESERVE.lock().unwrap().as_ref().unwrap().len();
        assert_eq!(held(), RESERVED);
        for errno in [Errno::MFILE, Errno::NFILE] {
            for needed in 0..=RESERVED {
                let result = with_reserve(|| if held() + needed > RESERVED { Err(error(errno)) } else { Ok(held()) });
                assert_eq!(result.unwrap(), RESERVED - needed);
                assert_eq!(held(), RESERVED, "taken again");
            }
            let mut tries = 0;
            let result = with_reserve(|| {
                tries += 1;
                Err::<(), _>(error(errno))
            });
            assert_eq!(Errno::from_io_error(&result.unwrap_err()), Some(errno));
            assert_eq!((tries, held()), (RESERVED + 1, RESERVED));
        }
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::IO] {
            let mut tries = 0;
            let result = with_reserve(|| {
                tries += 1;
                Err::<(), _>(error(errno))
            });
            assert_eq!((Errno::from_io_error(&result.unwrap_err()), tries), (Some(errno), 1));
        }
    }
}
