//! Compresses the layers of a docker-archive, as registries expect them.

use std::{
    fs::File,
    io::{self, Read, Write},
    sync::Arc,
};

use flate2::{Compression, GzBuilder, bufread::MultiGzDecoder};

use super::{data::Data, image::ImageBlob};
use crate::image::{Digest, Hasher, Mismatch, digest::Algorithm};

/// The maximum size of a decompressed layer, in bytes. A file of a megabyte can decompress to a gigabyte.
const MAX_LAYER_BYTES: u64 = 64 << 30;
/// The size of a read, in bytes.
const STEP_BYTES: usize = 128 << 10;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTANDARD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// The reason why a layer can't be pushed.
#[derive(Debug)]
pub(super) enum LayerError {
    Io(io::Error),
    /// The temporary file can't be written.
    Temporary(io::Error),
    /// The image's configuration names another digest for the layer.
    Damaged(Box<Mismatch>),
    Zstandard,
    TooLarge,
}

impl From<io::Error> for LayerError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Compresses a layer into a temporary file, which the result owns; a layer that is compressed already stays as it is.
/// The decompressed layer must have the digest `diff_id`. The same layer always gives the same bytes.
pub(super) fn compressed(
    data: &Data,
    diff_id: &Digest,
    mut progress: impl FnMut(u64),
) -> Result<ImageBlob, LayerError> {
    let mut raw = HashingStream { inner: data.reader()?, hasher: Hasher::new(Algorithm::Sha256), count: 0 };
    let mut start = Vec::new();
    raw.by_ref().take(4).read_to_end(&mut start)?;
    if start.starts_with(ZSTANDARD) {
        return Err(LayerError::Zstandard);
    }
    let is_compressed = start.starts_with(GZIP);
    let mut buffer = vec![0; STEP_BYTES];
    let mut plain = Hasher::new(diff_id.algorithm());
    if is_compressed {
        let whole = io::BufReader::with_capacity(STEP_BYTES, (&*start).chain(raw.by_ref()));
        let mut decoder = MultiGzDecoder::new(whole);
        let mut length = 0;
        loop {
            let read = decoder.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            length += read as u64;
            if length > MAX_LAYER_BYTES {
                return Err(LayerError::TooLarge);
            }
            plain.update(&buffer[..read]);
            progress(decoder.get_ref().get_ref().get_ref().1.count);
        }
        drop(decoder);
        if let Some(mismatch) = diff_id.mismatch(plain.finish()) {
            return Err(LayerError::Damaged(mismatch));
        }
        return Ok(ImageBlob { digest: raw.hasher.finish(), data: data.clone() });
    }
    let file = tempfile::tempfile().map_err(LayerError::Temporary)?;
    let out = HashingStream { inner: io::BufWriter::new(file), hasher: Hasher::new(Algorithm::Sha256), count: 0 };
    // The gzip header contains neither a name nor a time.
    let mut encoder = GzBuilder::new().write(out, Compression::default());
    let mut step = start;
    let mut length = 0;
    loop {
        plain.update(&step);
        encoder.write_all(&step).map_err(LayerError::Temporary)?;
        length += step.len() as u64;
        progress(length);
        if length > MAX_LAYER_BYTES {
            return Err(LayerError::TooLarge);
        }
        step.resize(STEP_BYTES, 0);
        let read = raw.read(&mut step)?;
        step.truncate(read);
        if read == 0 {
            break;
        }
    }
    let HashingStream { inner, hasher, count } = encoder.finish().map_err(LayerError::Temporary)?;
    if let Some(mismatch) = diff_id.mismatch(plain.finish()) {
        return Err(LayerError::Damaged(mismatch));
    }
    let file: File = inner.into_inner().map_err(|error| LayerError::Temporary(error.into_error()))?;
    Ok(ImageBlob { digest: hasher.finish(), data: Data::of(Arc::new(file), 0, count, data.name()) })
}

/// Computes the digest of the bytes that pass through it.
struct HashingStream<T> {
    inner: T,
    hasher: Hasher,
    count: u64,
}

impl<T> HashingStream<T> {
    fn passed(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.count += bytes.len() as u64;
    }
}

impl<T: Read> Read for HashingStream<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.passed(&buffer[..read]);
        Ok(read)
    }
}

impl<T: Write> Write for HashingStream<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.passed(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(bytes: &[u8]) -> Data {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Data::of(Arc::new(file), 0, bytes.len() as u64, "layer.tar")
    }

    fn bytes(data: &Data) -> Vec<u8> {
        data.read_at(0, usize::try_from(data.length()).unwrap()).unwrap()
    }

    #[test]
    fn a_layer_becomes_the_same_bytes_each_time_and_back_again() {
        for layer in [b"".as_slice(), b"abc", &b"0123456789".repeat(50_000)] {
            let diff_id = Digest::sha256(layer);
            let blobs = [0, 1].map(|_| compressed(&data(layer), &diff_id, |_| ()).unwrap());
            assert_eq!(blobs[0].digest, blobs[1].digest);
            assert_eq!(blobs[0].digest, Digest::sha256(&bytes(&blobs[0].data)));
            let mut back = Vec::new();
            MultiGzDecoder::new(&*bytes(&blobs[0].data)).read_to_end(&mut back).unwrap();
            assert_eq!(back, layer);
            // What is compressed already stays as it is.
            let again = compressed(&blobs[0].data, &diff_id, |_| ()).unwrap();
            assert_eq!(again.digest, blobs[0].digest);
        }
    }

    #[test]
    fn a_layer_that_is_another_one_is_refused_compressed_or_not() {
        let (one, other) = (Digest::sha256(b"one"), Digest::sha256(b"other"));
        assert!(
            matches!(compressed(&data(b"one"), &other, |_| ()), Err(LayerError::Damaged(wrong)) if wrong.found == one)
        );
        let blob = compressed(&data(b"one"), &one, |_| ()).unwrap();
        assert!(
            matches!(compressed(&blob.data, &other, |_| ()), Err(LayerError::Damaged(wrong)) if wrong.found == one)
        );
        let gzip = bytes(&blob.data);
        assert!(matches!(compressed(&data(&gzip[..gzip.len() - 4]), &one, |_| ()), Err(LayerError::Io(_))));
        assert!(matches!(compressed(&data(&[ZSTANDARD, b"x"].concat()), &one, |_| ()), Err(LayerError::Zstandard)));
    }
}
