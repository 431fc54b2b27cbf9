//! Reads the body of an answer: bounded, decoded, and counted against the memory budget of all answers.

use std::{ops::Deref, sync::Arc};

use bytes::Bytes;
use reqwest::Response;
use tokio::{task::yield_now, time::Instant};

use super::{
    encoding::{Encoding, Inflate, Undecodable},
    failure::Failure,
    memory_budget::{FREE_BYTES, MemoryBudget, MemoryReservation},
    quota::Tenant,
};

/// The number of compressed bytes that are inflated before memory for their content is reserved: 64 KiB of content at
/// most.
const FIRST_STEP_BYTES: usize = 64;
/// The number of compressed bytes that are inflated in one step, which keeps a worker busy for 1 MiB of content at
/// most.
const STEP_BYTES: usize = 1 << 10;

/// The first byte of gzip (RFC 1952, section 2.3.1). No content that is fetched here begins with it.
const GZIP: u8 = 0x1f;

/// The bytes of an answer.
#[derive(Default)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    /// The reservation in the memory budget of all answers.
    _room: Option<MemoryReservation>,
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The reader of one body, with its limits.
pub(super) struct BodyReader<'a> {
    /// The maximum size, both encoded and decoded, in bytes.
    pub(super) limit: usize,
    /// The body is needed. Errors in a body that is not needed are ignored.
    pub(super) counts: bool,
    /// The answer is to a HEAD request, and has no body whatever it announces (RFC 9110, section 9.3.2).
    pub(super) is_head: bool,
    pub(super) room: &'a Arc<MemoryBudget>,
    /// The registry whose quota the memory counts against.
    pub(super) tenant: &'a Tenant,
    /// The deadline for the memory reservation.
    pub(super) deadline: Instant,
}

impl BodyReader<'_> {
    /// Reads the body of an answer.
    ///
    /// # Errors
    /// A body that is needed is too long, breaks off, or has an encoding that can't be decoded.
    pub(super) async fn read(&self, response: &mut Response) -> Result<Body, Failure> {
        let announced = response.content_length().filter(|_| !self.is_head);
        if self.counts && announced.is_some_and(|bytes| bytes > self.limit as u64) {
            return Err(self.too_long());
        }
        let first = match response.chunk().await {
            Ok(first) => first,
            Err(error) if self.counts => return Err(Failure::of(&error)),
            Err(_) => return Ok(Body::default()),
        };
        match Encoding::of(response.headers()) {
            // Some servers send the header and the bytes as they are.
            Encoding::Gzip if first.as_ref().is_some_and(|bytes| bytes.first() == Some(&GZIP)) => {
                self.inflate(first, response).await
            }
            Encoding::Other(name) if self.counts && !self.is_head => Err(Failure::Misbehaved(format!(
                "what it sends is encoded (Content-Encoding: {name}), though it was asked for the bytes as they are"
            ))),
            _ => self.take(first, response, announced).await,
        }
    }

    /// Reads a body that is not encoded.
    async fn take(
        &self,
        first: Option<Bytes>,
        response: &mut Response,
        announced: Option<u64>,
    ) -> Result<Body, Failure> {
        let (mut bytes, mut room) = (Vec::new(), None);
        let mut next = Ok(first);
        loop {
            match next {
                Ok(Some(chunk)) if chunk.len() <= self.limit - bytes.len() => {
                    let length = bytes.len() + chunk.len();
                    if room.is_none() && length > FREE_BYTES {
                        // Reserves memory for the whole body in one step: requests that each hold a part and wait for
                        // more could wait for ever.
                        let most = announced.and_then(|bytes| usize::try_from(bytes).ok());
                        let most = most.filter(|&most| most >= length).unwrap_or(self.limit);
                        room = Some(self.room.take(most, self.tenant, self.deadline).await?);
                        bytes.reserve_exact(most - bytes.len());
                    }
                    bytes.extend_from_slice(&chunk);
                    next = response.chunk().await;
                }
                Ok(Some(_)) if self.counts => return Err(self.too_long()),
                Err(error) if self.counts => return Err(Failure::of(&error)),
                Ok(_) | Err(_) => break,
            }
        }
        Ok(Body { bytes, _room: room })
    }

    /// Inflates gzip while it arrives. Only the content is kept.
    async fn inflate(&self, first: Option<Bytes>, response: &mut Response) -> Result<Body, Failure> {
        let unread = |failure| if self.counts { Err(failure) } else { Ok(Body::default()) };
        let (mut inflate, mut room, mut taken) = (Inflate::new(self.limit), None, 0);
        let mut next = first;
        while let Some(chunk) = next {
            taken += chunk.len();
            if taken > self.limit {
                return unread(self.too_long());
            }
            let mut rest = &*chunk;
            while !rest.is_empty() {
                let step = if room.is_none() { FIRST_STEP_BYTES } else { STEP_BYTES };
                let (piece, after) = rest.split_at(step.min(rest.len()));
                if let Err(error) = inflate.push(piece) {
                    return unread(self.undecodable(error));
                }
                if room.is_none() && inflate.len() > FREE_BYTES {
                    room = Some(self.room.take(self.limit, self.tenant, self.deadline).await?);
                    inflate.reserve();
                }
                if room.is_some() {
                    yield_now().await;
                }
                rest = after;
            }
            next = match response.chunk().await {
                Ok(next) => next,
                Err(error) => return unread(Failure::of(&error)),
            };
        }
        match inflate.finish() {
            Ok(bytes) => Ok(Body { bytes, _room: room }),
            Err(error) => unread(self.undecodable(error)),
        }
    }

    fn too_long(&self) -> Failure {
        Failure::Misbehaved(format!("it sends more than {}", bytesize::ByteSize::b(self.limit as u64)))
    }

    fn undecodable(&self, error: Undecodable) -> Failure {
        error.failure(self.limit)
    }
}
