//! Reads the bytes of a blob in pieces while they are sent, and hashes them.

use std::{
    io,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};

use super::{blob::Blob, error::UploadError};
use crate::image::Hasher;
use crate::registry::content::Payload;

/// The size of a piece, which is held in memory, in bytes.
const PIECE_BYTES: u64 = 256 << 10;

/// A blob that is read in parts, some of them more than once. Its digest is checked before its last piece is returned,
/// so that no upload is completed with wrong bytes.
pub(super) struct BlobReader {
    blob: Arc<dyn Blob>,
    hashed: Mutex<Hashed>,
    /// The end of the last piece that was returned.
    position: AtomicU64,
    /// The reason why a body ended early, which the HTTP client's error does not contain.
    failure: Mutex<Option<UploadError>>,
}

/// The digest of all bytes up to `at`.
struct Hashed {
    hasher: Hasher,
    at: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BlobReader {
    pub(super) fn new(blob: &Arc<dyn Blob>) -> Arc<Self> {
        let hashed = Hashed { hasher: Hasher::new(blob.digest().algorithm()), at: 0 };
        Arc::new(Self {
            blob: Arc::clone(blob),
            hashed: Mutex::new(hashed),
            position: AtomicU64::new(0),
            failure: Mutex::new(None),
        })
    }

    /// Returns the end of the furthest piece that was read: the registry can't have more.
    pub(super) fn furthest(&self) -> u64 {
        lock(&self.hashed).at
    }

    /// Returns the end of the last piece that was returned.
    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// Takes the error of the last read, if there is one.
    pub(super) fn take_failure(&self) -> Option<UploadError> {
        lock(&self.failure).take()
    }

    /// Checks the digest of the blob.
    ///
    /// # Errors
    /// The whole blob was read, and it has another digest.
    pub(super) fn check(&self) -> Result<(), UploadError> {
        let hashed = lock(&self.hashed);
        if hashed.at < self.blob.length() {
            return Ok(());
        }
        match self.blob.digest().mismatch(hashed.hasher.clone().finish()) {
            None => Ok(()),
            Some(mismatch) => Err(UploadError::Damaged { name: self.blob.name().to_owned(), mismatch }),
        }
    }

    /// Reads the rest of the blob, so that [`BlobReader::check`] can compare its digest.
    ///
    /// # Errors
    /// The blob can't be read, or has another digest.
    pub(super) async fn read_to_end(self: &Arc<Self>) -> Result<(), UploadError> {
        let at = self.furthest();
        let mut pieces = pin!(Arc::clone(self).pieces(at, self.blob.length() - at));
        while let Some(piece) = pieces.next().await {
            if let Err(error) = piece {
                return Err(self.take_failure().unwrap_or_else(|| self.unreadable(error)));
            }
        }
        self.check()
    }

    /// Returns a part of the blob as the content of a request.
    pub(super) fn part(self: &Arc<Self>, offset: u64, length: u64) -> Payload {
        let reading = Arc::clone(self);
        let open = Arc::new(move || reqwest::Body::wrap_stream(Arc::clone(&reading).pieces(offset, length)));
        Payload::Stream { length, open }
    }

    fn pieces(self: Arc<Self>, offset: u64, length: u64) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let end = offset + length;
        stream::try_unfold((self, offset), move |(reading, at)| async move {
            if at >= end {
                return Ok(None);
            }
            let length = PIECE_BYTES.min(end - at);
            let piece = Arc::clone(&reading).piece(at, length).await?;
            Ok(Some((piece, (reading, at + length))))
        })
    }

    async fn piece(self: Arc<Self>, offset: u64, length: u64) -> io::Result<Bytes> {
        let this = Arc::clone(&self);
        let read = tokio::task::spawn_blocking(move || this.read(offset, length)).await;
        match read.unwrap_or_else(|panic| Err(self.unreadable(io::Error::other(panic)))) {
            Ok(bytes) => {
                self.position.store(offset + length, Ordering::Relaxed);
                Ok(bytes)
            }
            Err(error) => {
                *lock(&self.failure) = Some(error);
                Err(io::Error::other("the blob can't be read"))
            }
        }
    }

    fn read(&self, offset: u64, length: u64) -> Result<Bytes, UploadError> {
        // A piece is no larger than PIECE_BYTES.
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        let bytes = self.blob.read_at(offset, size).map_err(|source| self.unreadable(source))?;
        let mut hashed = lock(&self.hashed);
        if offset <= hashed.at
            && let Ok(known) = usize::try_from(hashed.at - offset)
            && known < bytes.len()
        {
            hashed.hasher.update(&bytes[known..]);
            hashed.at = offset + length;
        }
        drop(hashed);
        if offset + length == self.blob.length() {
            self.check()?;
        }
        Ok(bytes.into())
    }

    fn unreadable(&self, source: io::Error) -> UploadError {
        UploadError::Read { name: self.blob.name().to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;

    use super::*;
    use crate::image::Digest;

    /// Bytes in memory, which end too early if `length` is larger.
    struct InMemory {
        digest: Digest,
        length: u64,
        bytes: Vec<u8>,
    }

    impl Blob for InMemory {
        fn digest(&self) -> Digest {
            self.digest
        }

        fn length(&self) -> u64 {
            self.length
        }

        fn name(&self) -> &'static str {
            "layer"
        }

        fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            self.bytes.get(start..start + length).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// A blob with this content that should have that one.
    fn blob(content: &[u8], expected: &[u8]) -> Arc<dyn Blob> {
        let length = content.len() as u64;
        Arc::new(InMemory { digest: Digest::sha256(expected), length, bytes: content.to_vec() })
    }

    fn content() -> Vec<u8> {
        (0..3 * PIECE_BYTES + 7).map(|number| number.to_le_bytes()[0] ^ number.to_le_bytes()[1]).collect()
    }

    async fn read(reading: &Arc<BlobReader>, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let pieces: Vec<Bytes> = Arc::clone(reading).pieces(offset, length).try_collect().await?;
        assert!(pieces.iter().all(|piece| piece.len() as u64 <= PIECE_BYTES), "more is in memory than a piece");
        Ok(pieces.concat())
    }

    #[tokio::test]
    async fn a_blob_is_read_in_pieces_and_hashed_once_however_often_parts_are_read() {
        let content = content();
        let (length, piece) = (content.len() as u64, usize::try_from(PIECE_BYTES).unwrap());
        let reading = BlobReader::new(&blob(&content, &content));
        assert_eq!(read(&reading, 0, PIECE_BYTES + 1).await.unwrap(), content[..=piece]);
        assert_eq!((reading.furthest(), reading.position()), (PIECE_BYTES + 1, PIECE_BYTES + 1));
        assert_eq!(read(&reading, 100, 50).await.unwrap(), content[100..150]);
        assert_eq!((reading.furthest(), reading.position()), (PIECE_BYTES + 1, 150));
        assert_eq!(read(&reading, PIECE_BYTES, length - PIECE_BYTES).await.unwrap(), content[piece..]);
        assert_eq!(read(&reading, 0, length).await.unwrap(), content);
        assert_eq!(reading.furthest(), length);
        assert!(reading.check().is_ok() && reading.take_failure().is_none());
    }

    #[tokio::test]
    async fn the_last_piece_of_a_damaged_blob_is_not_given_out() {
        let content = content();
        let mut other = content.clone();
        other[5] ^= 1;
        let reading = BlobReader::new(&blob(&content, &other));
        let pieces: Vec<_> = Arc::clone(&reading).pieces(0, content.len() as u64).collect().await;
        assert_eq!(pieces.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, true, false]);
        assert!(matches!(reading.take_failure(), Some(UploadError::Damaged { .. })));
        assert!(reading.check().is_err());
    }

    #[tokio::test]
    async fn a_blob_that_can_not_be_read_says_so() {
        let blob: Arc<dyn Blob> = Arc::new(InMemory { digest: Digest::sha256(b"layer"), length: 5, bytes: Vec::new() });
        let reading = BlobReader::new(&blob);
        assert!(read(&reading, 0, 5).await.is_err());
        assert!(matches!(reading.take_failure(), Some(UploadError::Read { .. })));
    }
}
