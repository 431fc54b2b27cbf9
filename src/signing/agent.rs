//! Signs with gpg-agent.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use futures_util::StreamExt as _;
use sequoia_gpg_agent::{
    Agent,
    assuan::{Response, escape},
    sequoia_ipc::{Keygrip, sexp::Sexp},
};
use sequoia_openpgp::{
    Cert, crypto,
    fmt::hex,
    packet::{
        Key,
        key::{PublicParts, UnspecifiedRole},
    },
    policy::StandardPolicy,
    types::{HashAlgorithm, Timestamp},
};

/// The environment variables that tell gpg-agent where to ask for a passphrase, each with the agent's option.
const ENVIRONMENT: [(&str, &str); 5] = [
    ("GPG_TTY", "ttyname="),
    ("TERM", "ttytype="),
    ("DISPLAY", "display="),
    ("XAUTHORITY", "xauthority="),
    ("DBUS_SESSION_BUS_ADDRESS", "putenv=DBUS_SESSION_BUS_ADDRESS="),
];

/// A key whose secret part gpg-agent has.
///
/// `sequoia_gpg_agent::KeyPair` fails if the agent refuses one of its options, and passes on empty variables, which
/// agents refuse. gpg leaves those out.
pub(super) struct AgentKey {
    home: PathBuf,
    key: Key<PublicParts, UnspecifiedRole>,
    prompt: String,
}

impl AgentKey {
    /// Makes a signer for a key of this certificate, with the agent of this GnuPG folder.
    pub(super) fn new(home: PathBuf, certificate: &Cert, key: Key<PublicParts, UnspecifiedRole>) -> Self {
        let prompt = prompt(certificate, &key);
        Self { home, key, prompt }
    }

    async fn sign_by_agent(&self, hash: HashAlgorithm, digest: &[u8]) -> anyhow::Result<crypto::mpi::Signature> {
        let mut agent = Agent::connect_to(&self.home).await?;
        if !agent.is_restricted() {
            for option in options(|name| std::env::var(name).ok()) {
                if let Err(error) = agent.send_simple(&option).await {
                    // The option only tells the agent where to ask.
                    tracing::debug!(option, %error, "gpg-agent refuses an option");
                }
            }
        }
        agent.send_simple(format!("SIGKEY {}", Keygrip::of(self.key.mpis())?)).await?;
        agent.send_simple(format!("SETKEYDESC {}", escape(&self.prompt))).await?;
        agent.send_simple(format!("SETHASH {} {}", u8::from(hash), hex::encode(digest))).await?;
        agent.send("PKSIGN")?;
        let mut data = Vec::new();
        while let Some(response) = agent.next().await {
            match response? {
                Response::Ok { .. } | Response::Comment { .. } | Response::Status { .. } => {}
                // An inquiry may say that a pinentry was started, for example.
                Response::Inquire { .. } => {
                    agent.send("END")?;
                    // The client sends the command once the next response is requested, and this inquiry gets no
                    // response.
                    agent.next().await;
                }
                Response::Data { partial } => data.extend_from_slice(&partial),
                Response::Error { message, .. } => {
                    let message = message.as_deref().unwrap_or("it does not say why");
                    return Err(anyhow!("gpg-agent refuses: {message}"));
                }
            }
        }
        Sexp::from_bytes(&data)?.to_signature()
    }
}

impl crypto::Signer for AgentKey {
    fn public(&self) -> &Key<PublicParts, UnspecifiedRole> {
        &self.key
    }

    fn sign(&mut self, hash: HashAlgorithm, digest: &[u8]) -> sequoia_openpgp::Result<crypto::mpi::Signature> {
        // This thread already has a runtime, which must not be blocked.
        let sign = || -> anyhow::Result<_> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(self.sign_by_agent(hash, digest))
        };
        let signed = std::thread::scope(|scope| scope.spawn(sign).join());
        signed.map_err(|_| anyhow!("the connection to gpg-agent ended")).flatten().context("gpg-agent did not sign")
    }
}

/// Returns the options that describe the environment to the agent. As in gpg, an empty variable counts as not set.
fn options(variable: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let usable = |value: &String| !value.is_empty() && !value.contains(char::is_control);
    let option = |(name, option): (&str, &str)| Some(format!("OPTION {option}{}", variable(name).filter(usable)?));
    ENVIRONMENT.into_iter().filter_map(option).collect()
}

/// Returns the text of the passphrase prompt.
fn prompt(certificate: &Cert, key: &Key<PublicParts, UnspecifiedRole>) -> String {
    let policy = StandardPolicy::new();
    let valid = certificate.with_policy(&policy, None).ok();
    let user_id = valid.and_then(|valid| Some(format!("{}\n", valid.primary_userid().ok()?.userid())));
    let created = Timestamp::try_from(key.creation_time()).map(|time| format!(", created {time}"));
    let is_primary = key.keyid() == certificate.keyid();
    let primary = if is_primary { String::new() } else { format!(" (main key ID {:X})", certificate.keyid()) };
    format!(
        "Please enter the passphrase to unlock the OpenPGP secret key:\n{}ID {:X}{}{primary}.",
        user_id.unwrap_or_default(),
        key.keyid(),
        created.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_empty_is_not_passed_on_to_the_agent() {
        for set in 0_u32..1 << ENVIRONMENT.len() {
            let variable = |name: &str| {
                let number = ENVIRONMENT.iter().position(|(known, _)| *known == name)?;
                Some(if set & (1 << number) == 0 { String::new() } else { format!("value{number}") })
            };
            let passed = options(variable);
            assert_eq!(passed.len(), set.count_ones() as usize);
            assert!(passed.iter().all(|option| option.contains("=value")), "{passed:?}");
        }
        assert!(options(|_| None).is_empty());
        assert!(options(|_| Some("tty\nRESET".to_owned())).is_empty(), "a line is one command");
        assert_eq!(options(|name| (name == "GPG_TTY").then(|| "/dev/pts/0".into())), ["OPTION ttyname=/dev/pts/0"]);
    }
}
