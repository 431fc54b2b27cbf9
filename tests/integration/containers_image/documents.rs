//! policy.json documents: what skopeo does not read, we don't read; what it reads, we read, but for what we refuse with a
//! reason.

use super::case::Key;
use super::scenario::Scenario;

/// With `{key}` for a key file that is there.
const REFUSED_BY_BOTH: &[&str] = &[
    "",
    "null",
    "[]",
    "{}",
    "{} {}",
    "\u{feff}{\"default\":[{\"type\":\"reject\"}]}",
    r#"{"default":[]}"#,
    r#"{"default":null}"#,
    r#"{"default":{}}"#,
    r#"{"default":[null]}"#,
    r#"{"default":[{}]}"#,
    r#"{"default":["reject"]}"#,
    r#"{"default":[{"type":"Reject"}]}"#,
    r#"{"default":[{"type":"reject"}],}"#,
    r#"{"default":[{"type":"reject",}]}"#,
    r#"{"default":[{"type":"reject"},]}"#,
    "{'default':[{'type':'reject'}]}",
    r#"{"default":[{"type":"reject"}]} // no comments"#,
    r#"{"default":[{"Type":"reject"}]}"#,
    r#"{"default":[{"type":"reject","type":"reject"}]}"#,
    r#"{"default":[{"type":"reject","Type":"reject"}]}"#,
    r#"{"default":[{"type":"reject","comment":"no"}]}"#,
    r#"{"default":[{"type":null}]}"#,
    r#"{"Default":[{"type":"reject"}]}"#,
    r#"{"default":[{"type":"reject"}],"default":[{"type":"reject"}]}"#,
    r#"{"default":[{"type":"reject"}],"def\u0061ult":[{"type":"reject"}]}"#,
    r#"{"default":[{"type":"reject"}],"version":1}"#,
    r#"{"default":[{"type":"reject"}],"transports":null}"#,
    r#"{"default":[{"type":"reject"}],"transports":[]}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"docker":null}}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"docker":{"":[]}}}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"docker":{"":null}}}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"docker":{"":{"type":"reject"}}}}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a.b":[{"type":"reject"}],"a.b":[{"type":"reject"}]}}}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"docker":{},"docker":{}}}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"dir":{"relative":[{"type":"reject"}]}}}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"dir":{"/":[{"type":"reject"}]}}}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"oci":{"/a/../b":[{"type":"reject"}]}}}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"docker-archive":{"/a":[{"type":"reject"}]}}}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"containers-storage":{"a":[{"type":"reject"}]}}}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"atomic":{"":[]}}}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"from-tomorrow":{"":[{"type":"unheard-of"}]}}}"#,
    r#"{"default":[{"type":"signedBy"}]}"#,
    r#"{"default":[{"type":"signedBy","keyPath":"{key}"}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys"}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"gpgkeys","keyPath":"{key}"}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":""}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":null}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":["{key}"]}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPaths":"{key}"}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPaths":null}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyData":"%%%"}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","keyPaths":["{key}"]}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","keyData":"AAAA"}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","keypath":"{key}"}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","signedIdentity":null}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","signedIdentity":"matchExact"}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","signedIdentity":{}}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","signedIdentity":{"type":"matchAnything"}}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","signedIdentity":{"type":"matchExact","a":1}}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","signedIdentity":{"type":"exactReference"}}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","signedIdentity":{"type":"exactReference","dockerReference":"a.b/c"}}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","signedIdentity":{"type":"exactReference","dockerReference":"UP"}}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","signedIdentity":{"type":"exactRepository","dockerRepository":""}}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","signedIdentity":{"type":"exactRepository","dockerReference":"a.b/c"}}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","signedIdentity":{"type":"remapIdentity","prefix":"a.b"}}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","signedIdentity":{"type":"remapIdentity","prefix":"a.b","signedPrefix":""}}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","signedIdentity":{"type":"remapIdentity","prefix":"a.b/c:1","signedPrefix":"d.e"}}]}"#,
    r#"{"default":[{"type":"signedBaseLayer"}]}"#,
    r#"{"default":[{"type":"signedBaseLayer","baseLayerIdentity":null}]}"#,
    r#"{"default":[{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"},"keyType":"GPGKeys"}]}"#,
];

const READ_BY_BOTH: &[&str] = &[
    r#"{"default":[{"type":"reject"}]}"#,
    "\n\t{ \"default\" :\r\n[ {\"type\":\"insecureAcceptAnything\"} ] }\n\n",
    r#"{"default":[{"type":"rej\u0065ct"},{"type":"insecureAcceptAnything"}]}"#,
    r#"{"default":[{"type":"reject"}],"transports":{}}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"docker":{}}}"#,
    r#"{"transports":{"docker":{"":[{"type":"reject"}],"a.b:5000/c":[{"type":"reject"}]}},"default":[{"type":"reject"}]}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"docker":{"*.example.com":[{"type":"reject"}],"localhost":[{"type":"reject"}]}}}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a.b/c:1":[{"type":"reject"}],"docker.io/library/busybox":[{"type":"reject"}]}}}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"dir":{"":[{"type":"reject"}],"/a":[{"type":"reject"}]}}}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"docker-daemon":{"":[{"type":"insecureAcceptAnything"}]}}}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"atomic":{"a//b":[{"type":"reject"}]},"from-tomorrow":{"*":[{"type":"reject"}]}}}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"containers-storage":{"[overlay@/var/lib]a.b/c":[{"type":"reject"}]}}}"#,
    r#"{"default":[{"type":"reject"}],"transports":{"dir":{"":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/not/there"}]}}}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}"}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPaths":["{key}","{key}"]}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","signedIdentity":{"type":"matchExact"}}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","signedIdentity":{"type":"exactReference","dockerReference":"busybox:1"}}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","signedIdentity":{"type":"exactRepository","dockerRepository":"a.b/c:1"}}]}"#,
    r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","signedIdentity":{"type":"remapIdentity","prefix":"a.b:5000/c","signedPrefix":"localhost"}}]}"#,
    r#"{"default":[{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchRepository"}}]}"#,
];

/// What skopeo reads and we don't: each has its reason in docs/policy-json.md.
const REFUSED_BY_US: &[(&str, &str)] = &[
    ("can't be checked yet", r#"{"default":[{"type":"sigstoreSigned","keyPath":"{key}"}]}"#),
    ("implemented by no reader", r#"{"default":[{"type":"signedBy","keyType":"signedByGPGKeys","keyPath":"{key}"}]}"#),
    ("no such file", r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/not/there"}]}"#),
    ("is empty", r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPaths":[]}]}"#),
    ("is empty", r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyData":""}]}"#),
    ("OpenPGP", r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyData":"bm8ga2V5"}]}"#),
    ("never match", r#"{"default":[{"type":"reject"}],"transports":{"docker":{"*":[{"type":"reject"}]}}}"#),
    ("never match", r#"{"default":[{"type":"reject"}],"transports":{"docker":{"A.b":[{"type":"reject"}]}}}"#),
    ("never match", r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a.b:443":[{"type":"reject"}]}}}"#),
    (
        "begins with a registry's host",
        r#"{"default":[{"type":"reject"}],"transports":{"docker":{"busybox":[{"type":"reject"}]}}}"#,
    ),
    ("slash", r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a.b/":[{"type":"reject"}]}}}"#),
    (
        "prefix",
        r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"{key}","signedIdentity":{"type":"remapIdentity","prefix":"A.b","signedPrefix":"d.e"}}]}"#,
    ),
    ("not JSON", r#"{"default":[{"type":"reject"}],"transports":{"dir":{"/\ud800":[{"type":"reject"}]}}}"#),
];

#[tokio::test(flavor = "multi_thread")]
async fn policy_documents_are_read_as_skopeo_reads_them() {
    let scenario = Scenario::new().await;
    let key = scenario.key_file(&[Key::Release]);
    let all = REFUSED_BY_BOTH
        .iter()
        .map(|text| (*text, false, None))
        .chain(READ_BY_BOTH.iter().map(|text| (*text, true, None)))
        .chain(REFUSED_BY_US.iter().map(|(why, text)| (*text, true, Some(*why))));
    for (number, (text, skopeo_reads, why)) in all.enumerate() {
        let policy = scenario.folder().write(&format!("documents/{number}.json"), text.replace("{key}", &key));
        let skopeo = scenario.skopeo_reads(&policy);
        assert_eq!(skopeo.allowed, skopeo_reads, "skopeo, of {text}: {}", skopeo.said);
        let sealgate = scenario.sealgate_reads(&policy);
        assert_eq!(sealgate.allowed, skopeo_reads && why.is_none(), "sealgate, of {text}: {}", sealgate.said);
        if let Some(why) = why {
            assert!(sealgate.said.contains(why), "{text}: {}", sealgate.said);
        }
        if !sealgate.allowed {
            assert!(sealgate.said.contains(&format!("{number}.json:")), "{text}: {}", sealgate.said);
        }
    }
}
