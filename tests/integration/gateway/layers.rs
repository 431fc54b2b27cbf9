//! Large layers: whole, in both directions, in little memory.

use futures_util::stream;
use reqwest::{Body, Client};
use sealgate::image::Digest;

use crate::support::{DockerRegistry, Store};

const MIB: usize = 1 << 20;

/// Bytes that no compression and no mistake in a copy leaves as they are.
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[tokio::test]
async fn a_layer_of_100_mib_goes_through_whole_in_both_directions() {
    let registry = DockerRegistry::start();
    let store = Store::start(&registry.url());
    let client = Client::new();
    let layer = bytes::Bytes::from(noise(100 * MIB));
    let digest = Digest::sha256(&layer);
    let begin = async || {
        let begun = client.post(format!("{}/v2/acme/web/blobs/uploads/", store.url())).send().await.unwrap();
        begun.headers()["location"].to_str().unwrap().to_owned()
    };
    // With a length, as docker and skopeo do, and then in chunks of unknown number.
    let pieces: Vec<_> =
        (0..100).map(|piece| Ok::<_, std::io::Error>(layer.slice(piece * MIB..(piece + 1) * MIB))).collect();
    let chunked = Body::wrap_stream(stream::iter(pieces));
    for body in [Body::from(layer.clone()), chunked] {
        let location = begin().await;
        let patched = client.patch(&location).header("content-type", "application/octet-stream").body(body);
        let patched = patched.send().await.unwrap();
        assert_eq!(patched.status(), 202);
        let location = patched.headers()["location"].to_str().unwrap().to_owned();
        let done = client.put(format!("{location}&digest={digest}")).send().await.unwrap();
        assert_eq!(done.status(), 201, "the registry has hashed what it got");
    }
    let got = client.get(format!("{}/v2/acme/web/blobs/{digest}", store.url())).send().await.unwrap();
    assert_eq!(got.headers()["content-length"], (100 * MIB).to_string().as_str());
    assert_eq!(Digest::sha256(&got.bytes().await.unwrap()), digest);
}
