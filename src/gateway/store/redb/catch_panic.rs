//! Turns panics of redb into errors. redb promises errors for damaged files; if it panics all the same, the file counts
//! as damaged.

use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::Once,
};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// The work panicked.
pub(super) struct Panicked;

/// Runs work on a file whose content is not trusted. Logs a panic at the level debug.
pub(super) fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            if GUARDED.get() {
                tracing::debug!(%panicked, "redb panicked, so the store's file counts as damaged");
            } else {
                usual(panicked);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    // The file is closed after a panic, so that no unfinished state is used again.
    let outcome = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    outcome.map_err(|_| Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_outcome() {
        assert!(catch_panic(|| panic!("this can't be right")).is_err());
        assert!(matches!(catch_panic(|| 1), Ok(1)));
        assert!(!GUARDED.get(), "what panics from here on is told");
    }
}
