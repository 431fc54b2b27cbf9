//! The async runtime of commands.

use super::exit_status::CliError;

/// Runs a command's work to its end. Does not wait for abandoned work on blocking threads, such as the look-up of a
/// name without an answer: durable changes were synced before.
///
/// # Errors
/// The threads can't be started.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::undecided(format_args!("threads can't be started: {error}")))?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(result)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
            mpsc,
        },
        time::Duration,
    };

    use super::*;

    #[test]
    fn what_hangs_on_a_blocking_thread_does_not_keep_the_command_from_ending() {
        let ended = Arc::new(AtomicBool::new(false));
        let (release, released) = mpsc::channel::<()>();
        let (started, starts) = mpsc::channel();
        let hangs = {
            let ended = Arc::clone(&ended);
            move || {
                started.send(()).unwrap();
                // As long as a resolver may hang. A test that does not wait for it ends long before.
                let _ = released.recv_timeout(Duration::from_mins(2));
                ended.store(true, Ordering::SeqCst);
            }
        };
        let answer = block_on(async {
            tokio::task::spawn_blocking(hangs);
            starts.recv().unwrap();
            "answer"
        });
        assert!(!ended.load(Ordering::SeqCst), "it was waited for");
        assert_eq!(answer.unwrap(), "answer");
        drop(release);
    }
}
