//! Tokens that the real Docker registry takes.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use url::Url;

use super::{Asked, Scratch};

/// Signs tokens as distribution's own token servers do: a JWT with the certificate in its header.
pub(crate) struct Issuer {
    key: EcdsaKeyPair,
    certificate: Vec<u8>,
    pem: String,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(["issuer".to_owned()]).expect("a name");
        let certificate = certificate.self_signed(&key).expect("a certificate");
        Self {
            key: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der()).expect("P-256"),
            certificate: certificate.der().to_vec(),
            pem: certificate.pem(),
        }
    }

    /// The registry's configuration (`auth:`) by which it takes these tokens, and names this realm.
    pub(crate) fn configuration(&self, folder: &Scratch, realm: &str) -> String {
        let bundle = folder.write("issuer.pem", &self.pem);
        format!(
            "auth: {{token: {{realm: '{realm}', service: test, issuer: issuer, rootcertbundle: {}}}}}",
            bundle.display()
        )
    }

    /// A token that lets its bearer do what the request's scopes name.
    pub(crate) fn token(&self, asked: &Asked) -> String {
        let url = Url::parse(&format!("http://realm{}", asked.path)).expect("a URL");
        let query = |name: &'static str| url.query_pairs().filter(move |(key, _)| key == name).map(|(_, value)| value);
        let access = |scope: &str| {
            let [kind, name, actions] = scope.split(':').collect::<Vec<_>>()[..] else { panic!("{scope}") };
            json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()})
        };
        let access: Vec<Value> = query("scope").map(|scope| access(&scope)).collect();
        let now = Timestamp::now().as_second();
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(&self.certificate)]});
        let claims = json!({
            "iss": "issuer", "sub": "robot", "aud": query("service").next().expect("a service"), "exp": now + 300,
            "nbf": now - 10, "iat": now, "jti": now.to_string(), "access": access,
        });
        let encoded = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let text = format!("{}.{}", encoded(header), encoded(claims));
        let signature = self.key.sign(&SystemRandom::new(), text.as_bytes()).expect("a signature");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}
