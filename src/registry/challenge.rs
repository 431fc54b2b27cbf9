//! Parses `WWW-Authenticate` (RFC 9110, section 11.6.1; distribution's token specification).
//!
//! Registries and their proxies deviate from the grammar: values without quotes that contain spaces, spaces or
//! semicolons in place of commas, empty values, duplicate parameters, Latin-1. A header with one possible meaning is
//! accepted. The parser does not decide where credentials go: the realm's host does.

use std::borrow::Cow;

use url::Url;

/// The maximum size of a header, in bytes.
const MAX_HEADER_BYTES: usize = 8 << 10;
/// The maximum number of challenges.
const MAX_CHALLENGES: usize = 16;
/// The maximum size of a realm, and of a service, in bytes.
const MAX_REALM: usize = 2048;
/// The supported schemes. In a value without quotes, only these words begin the next challenge.
const SCHEMES: [&str; 2] = ["Basic", "Bearer"];

/// The authentication that a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Basic authentication: name and password in each request.
    Basic,
    /// Token authentication: a token from the realm.
    Bearer {
        /// The URL of the token server: http or https, without user information.
        realm: Url,
        /// The registry's name at the realm.
        service: Option<Box<str>>,
    },
}

/// The reason why a header has no supported challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChallengeError {
    #[error("there is no WWW-Authenticate header")]
    Missing,
    #[error("its WWW-Authenticate header is malformed")]
    Malformed,
    #[error("its WWW-Authenticate header asks for neither Basic nor Bearer")]
    UnknownScheme,
    #[error("its WWW-Authenticate header has no usable realm")]
    Realm,
}

impl Challenge {
    /// Returns the approximate memory that the challenge takes, in bytes.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Basic => 0,
            Self::Bearer { realm, service } => {
                realm.as_str().len() + service.as_ref().map_or(0, |service| service.len())
            }
        }
    }

    /// Parses all such headers of an answer. Prefers a token if there is a choice, since a stolen token is worth less
    /// than a password.
    pub(crate) fn parse<'a>(headers: impl Iterator<Item = &'a [u8]>) -> Result<Self, ChallengeError> {
        let mut found = Vec::new();
        for header in headers {
            if header.len() > MAX_HEADER_BYTES {
                return Err(ChallengeError::Malformed);
            }
            // Latin-1 may occur: it is harmless in a description, and elsewhere its replacement character is refused.
            ChallengeParser { rest: &String::from_utf8_lossy(header) }.challenges(&mut found)?;
        }
        if found.is_empty() {
            return Err(ChallengeError::Missing);
        }
        let mut bearers = found.iter().filter(|raw| raw.is("Bearer")).map(RawChallenge::bearer);
        if let Some(first) = bearers.next() {
            return if first.is_ok() { first } else { bearers.find(Result::is_ok).unwrap_or(first) };
        }
        let basic = found.iter().any(|raw| raw.is("Basic"));
        if basic { Ok(Self::Basic) } else { Err(ChallengeError::UnknownScheme) }
    }
}

/// A challenge before its parameters are checked.
struct RawChallenge {
    scheme: Box<str>,
    /// The number of parameters; only those that matter are kept.
    count: usize,
    parameters: Vec<(&'static str, String)>,
}

impl RawChallenge {
    fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    fn add(&mut self, name: &str, value: Cow<'_, str>) -> Result<(), ChallengeError> {
        self.count += 1;
        if self.count > MAX_CHALLENGES {
            return Err(ChallengeError::Malformed);
        }
        if let Some(name) = ["realm", "service"].into_iter().find(|known| name.eq_ignore_ascii_case(known)) {
            self.parameters.push((name, value.into_owned()));
        }
        Ok(())
    }

    /// Returns the value of a parameter. Two different values are an error.
    fn get(&self, name: &str) -> Result<Option<&str>, ChallengeError> {
        let mut values = self.parameters.iter().filter(|(key, _)| *key == name).map(|(_, value)| value.as_str());
        let first = values.next();
        if values.all(|other| Some(other) == first) { Ok(first) } else { Err(ChallengeError::Malformed) }
    }

    fn bearer(&self) -> Result<Challenge, ChallengeError> {
        let text = self.get("realm")?.unwrap_or_default().trim();
        // A URL has no spaces: the value is two values, or a description.
        let unclear = |c: char| c.is_whitespace() || c == char::REPLACEMENT_CHARACTER;
        if text.is_empty() || text.len() > MAX_REALM || text.contains(unclear) {
            return Err(ChallengeError::Realm);
        }
        let mut realm = Url::parse(text).map_err(|_| ChallengeError::Realm)?;
        let bare = realm.username().is_empty() && realm.password().is_none();
        if !matches!(realm.scheme(), "http" | "https") || !bare || !realm.has_host() {
            return Err(ChallengeError::Realm);
        }
        realm.set_fragment(None);
        let service = self.get("service")?.filter(|service| !service.is_empty());
        if service.is_some_and(|service| service.len() > MAX_REALM || service.contains(char::REPLACEMENT_CHARACTER)) {
            return Err(ChallengeError::Malformed);
        }
        Ok(Challenge::Bearer { realm, service: service.map(Into::into) })
    }
}

struct ChallengeParser<'a> {
    rest: &'a str,
}

/// Returns whether a character separates parameters and challenges. RFC 9110 allows the comma alone.
fn is_divider(c: char) -> bool {
    is_space(c) || matches!(c, ',' | ';')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

impl<'a> ChallengeParser<'a> {
    /// Parses words: a word before an equals sign is a parameter of the current challenge, any other word begins a
    /// challenge.
    fn challenges(&mut self, found: &mut Vec<RawChallenge>) -> Result<(), ChallengeError> {
        // A parameter belongs to a challenge of the same header.
        let first = found.len();
        // Directly after a scheme and a space, a word may be the scheme's data ("Negotiate YWJj").
        let mut data_may_follow = false;
        loop {
            let divider = self.skip(is_divider);
            if self.rest.is_empty() {
                return Ok(());
            }
            let word = self.word();
            if word.is_empty() {
                // A quote or an equals sign without a name before it.
                return Err(ChallengeError::Malformed);
            }
            if self.is_at_equals() {
                let value = self.value()?;
                let raw = found[first..].last_mut().ok_or(ChallengeError::Malformed)?;
                raw.add(word, value)?;
                data_may_follow = false;
                continue;
            }
            if !self.rest.is_empty() && !self.rest.starts_with(is_divider) {
                return Err(ChallengeError::Malformed);
            }
            let is_data = data_may_follow && divider.chars().all(is_space) && !is_known(word);
            if is_data {
                data_may_follow = false;
                continue;
            }
            if !is_token(word) || found.len() == MAX_CHALLENGES {
                return Err(ChallengeError::Malformed);
            }
            found.push(RawChallenge { scheme: word.into(), count: 0, parameters: Vec::new() });
            data_may_follow = true;
        }
    }

    /// Parses the value after a parameter's name: an equals sign, and a quoted, unquoted or missing value.
    fn value(&mut self) -> Result<Cow<'a, str>, ChallengeError> {
        self.skip(is_space);
        self.rest = self.rest.strip_prefix('=').ok_or(ChallengeError::Malformed)?;
        let before = self.rest;
        let is_apart = !self.skip(is_space).is_empty();
        if let Some(rest) = self.rest.strip_prefix('"') {
            return self.quoted(rest).map(Cow::Owned);
        }
        let start = self.rest;
        self.rest = start.trim_start_matches(|c: char| !is_divider(c) && c != '"');
        let word = &start[..start.len() - self.rest.len()];
        if is_apart && (word.contains('=') || self.is_at_equals() || self.rest.starts_with('"')) {
            // The word is the next parameter: "error= scope=x".
            self.rest = before;
            return Ok(Cow::Borrowed(""));
        }
        if self.rest.starts_with('"') {
            return Err(ChallengeError::Malformed);
        }
        if word.contains(char::is_control) {
            return Err(ChallengeError::Malformed);
        }
        let mut value = Cow::Borrowed(word);
        // Further words up to a comma belong to the value, too: "realm=Docker Registry".
        while let Some(word) = self.word_of_value() {
            let value = value.to_mut();
            value.push(' ');
            value.push_str(word);
        }
        Ok(value)
    }

    /// Returns the next word of an unquoted value, unless it is a parameter or a challenge.
    fn word_of_value(&mut self) -> Option<&'a str> {
        let before = self.rest;
        if self.skip(is_space).is_empty() {
            return None;
        }
        let word = self.word();
        let ends = self.rest.is_empty() || self.rest.starts_with(is_divider);
        let mut is_of_value = !word.contains(char::is_control) && !word.is_empty() && ends && !self.is_at_equals();
        if is_of_value && is_known(word) {
            let mut behind = ChallengeParser { rest: self.rest };
            behind.skip(is_space);
            is_of_value = behind.word().is_empty() || !behind.is_at_equals();
        }
        if !is_of_value {
            self.rest = before;
        }
        is_of_value.then_some(word)
    }

    /// Parses a quoted value after its opening quote.
    fn quoted(&mut self, mut rest: &'a str) -> Result<String, ChallengeError> {
        let mut value = String::new();
        loop {
            let mut characters = rest.chars();
            let character = match characters.next().ok_or(ChallengeError::Malformed)? {
                '"' => break,
                '\\' => characters.next().ok_or(ChallengeError::Malformed)?,
                character => character,
            };
            if character.is_control() {
                return Err(ChallengeError::Malformed);
            }
            value.push(character);
            rest = characters.as_str();
        }
        self.rest = &rest[1..];
        let ends = self.rest.is_empty() || self.rest.starts_with(is_divider);
        if ends { Ok(value) } else { Err(ChallengeError::Malformed) }
    }

    /// Returns the characters up to the next separator.
    fn word(&mut self) -> &'a str {
        let start = self.rest;
        self.rest = start.trim_start_matches(|c: char| !is_divider(c) && !matches!(c, '=' | '"'));
        &start[..start.len() - self.rest.len()]
    }

    fn is_at_equals(&self) -> bool {
        self.rest.trim_start_matches(is_space).starts_with('=')
    }

    fn skip(&mut self, what: fn(char) -> bool) -> &'a str {
        let start = self.rest;
        self.rest = start.trim_start_matches(what);
        &start[..start.len() - self.rest.len()]
    }
}

fn is_known(word: &str) -> bool {
    SCHEMES.iter().any(|scheme| scheme.eq_ignore_ascii_case(word))
}

fn is_token(word: &str) -> bool {
    let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !word.is_empty() && word.bytes().all(is_of_token)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REALM: &str = "https://auth.example.com/token?a=b";

    fn parse(headers: &[&str]) -> Result<Challenge, ChallengeError> {
        Challenge::parse(headers.iter().map(|header| header.as_bytes()))
    }

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: Url::parse(realm).unwrap(), service: service.map(Into::into) }
    }

    #[test]
    fn what_registries_say_is_understood() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="a:b,c:pull""#;
        let expected = bearer("https://auth.docker.io/token", Some("registry.docker.io"));
        assert_eq!(parse(&[hub]).unwrap(), expected);
        assert_eq!(parse(&["Basic realm=x", hub]).unwrap(), expected);
        assert_eq!(parse(&[hub, "Basic realm=x"]).unwrap(), expected);
        assert_eq!(parse(&[&format!("Negotiate, Basic realm=\"a\\\"b\" , {hub}")]).unwrap(), expected);
        for data in ["YWJj", "YWJj=", "YWJj==", "a/b+c==", "a/b+c"] {
            assert_eq!(parse(&[&format!("Negotiate {data}, {hub}")]).unwrap(), expected, "{data}");
            assert_eq!(parse(&[&format!("{hub}, Negotiate {data}")]).unwrap(), expected, "{data}");
        }
        assert_eq!(
            parse(&["bearer REALM=\"http://r.example.com/t#f\""]).unwrap(),
            bearer("http://r.example.com/t", None)
        );
        assert_eq!(parse(&["Basic"]).unwrap(), Challenge::Basic);
        assert_eq!(parse(&["BASIC realm=\"Registry Realm\", charset=\"UTF-8\""]).unwrap(), Challenge::Basic);
    }

    #[test]
    fn a_basic_challenge_may_be_written_oddly() {
        let latin_1 = b"Basic realm=\"Zugang f\xfcr alle\"".as_slice();
        let bare_latin_1 = b"Basic realm=Zugang f\xfcr alle, charset=\"UTF-8\"".as_slice();
        for header in [latin_1, bare_latin_1] {
            assert_eq!(Challenge::parse([header].into_iter()), Ok(Challenge::Basic));
        }
        for header in [
            "Basic realm=Docker Registry",
            "Basic realm=Docker Registry, charset=UTF-8",
            "Basic realm=Registry (for all) v2; charset=UTF-8",
            "Basic realm=\"x\" charset=\"UTF-8\"",
            "Basic realm=\"x\";charset=\"UTF-8\";",
            "Basic realm=",
            "Basic realm=,",
            "Basic realm= charset=\"UTF-8\"",
            "Basic realm=\"x\",realm=\"y\"",
            "Basic realm=\"x\", error=",
            "Basic, realm=\"x\"",
            "Basic realm=Token Bearer",
            "Basic realm=All Bearers of Basic passwords",
            "Basic realm=\"Bearer realm=https://r.example.com/\"",
        ] {
            assert_eq!(parse(&[header]), Ok(Challenge::Basic), "{header}");
        }
    }

    #[test]
    fn a_bearer_challenge_may_be_written_oddly() {
        let r = format!(r#"realm="{REALM}",service="x""#);
        let expected = bearer(REALM, Some("x"));
        for header in [
            format!(r#"Bearer {r},scope="a",scope="b""#),
            format!(r#"Bearer {r},scope="a",scope="a""#),
            format!(r#"Bearer {r},scope="repository:a/b:pull",error="insufficient_scope",error="x""#),
            format!("Bearer {r},error="),
            format!("Bearer error=,{r}"),
            format!("Bearer error= ,{r}"),
            format!("Bearer error= {r}"),
            format!("Bearer error= {}", r.replace("realm=", "realm =")),
            format!("Bearer {r},service=x"),
            format!("Bearer {r} , {r}"),
            format!("Bearer {}", r.replace(',', " ")),
            format!("Bearer {}", r.replace(',', "\t")),
            format!("Bearer {}", r.replace(',', ";")),
            format!("Bearer {}", r.replace(',', " ; ")),
            format!("Bearer {r};"),
            format!("Bearer {r} ; , "),
            format!("Bearer, {r}"),
            format!("Bearer {}", r.replace('=', " = ").replace("a = b", "a=b")),
            format!("Bearer realm={REALM},service=x"),
            format!("Bearer realm={REALM} service=x"),
            format!("Bearer realm={REALM};service=x scope=a b c"),
            format!("Bearer service=x, realm={REALM}"),
            format!(r#"Basic realm="r" Bearer {r}"#),
            format!("Basic realm=r Bearer {r}"),
            format!("Basic realm=Docker Registry, Bearer {r}"),
            format!("Basic realm=Docker Registry; Bearer {r}"),
            format!("Basic realm=Docker Registry Bearer {r}"),
            format!("Basic Bearer {r}"),
            format!("Bearer {r} Basic realm=r"),
            format!("Bearer {r}, Basic realm=Docker Registry"),
            format!("Bearer service=x, Bearer {r}"),
        ] {
            assert_eq!(parse(&[&header]).as_ref(), Ok(&expected), "{header}");
            assert_eq!(parse(&["Basic realm=Docker Registry", &header]).as_ref(), Ok(&expected), "{header}");
            assert_eq!(parse(&[&header, "Negotiate"]).as_ref(), Ok(&expected), "{header}");
        }
        let spaced = format!("Bearer realm={REALM},service=My Registry,scope=a");
        assert_eq!(parse(&[&spaced]), Ok(bearer(REALM, Some("My Registry"))), "not a part of it");
        assert_eq!(parse(&[&format!("Bearer realm={REALM},service=")]), Ok(bearer(REALM, None)));
    }

    #[test]
    fn what_no_registry_should_say_is_refused() {
        assert_eq!(parse(&[]), Err(ChallengeError::Missing));
        assert_eq!(parse(&["  , "]), Err(ChallengeError::Missing));
        assert_eq!(parse(&["Negotiate"]), Err(ChallengeError::UnknownScheme));
        for header in [
            "Bearer",
            "Bearer service=x",
            "Bearer service=x, Basic realm=r",
            "Bearer realm=x",
            "Bearer realm=\"file:///etc/passwd\"",
            "Bearer realm=\"https://user:pass@r.example.com/\"",
            "Bearer realm=\"\"",
            "Bearer realm=",
            "Bearer realm==",
            "Bearer realm=\"a\" realm2=\"b\"",
            "Bearer realm=\"https://r.example.com/a b\"",
            "Bearer realm=https://r.example.com/a b",
            "Bearer realm=\"https://r.example.com/\u{fffd}\"",
        ] {
            assert_eq!(parse(&[header]), Err(ChallengeError::Realm), "{header}");
        }
        for header in [
            "Bearer realm=\"https://r.example.com",
            "Bearer realm=\"https://r.example.com\\",
            "Bearer realm=\"https://a.example.com\",realm=\"https://b.example.com\"",
            "Bearer realm=\"https://a.example.com\",service=\"a\",service=\"b\"",
            "Bearer realm=\"https://a.example.com\",service=\"a\u{fffd}\"",
            "Bearer realm=\"https://a.example.com\"service=\"a\"",
            "Bearer realm=\"a\u{1}\"",
            "Bearer realm=a\"b\"",
            "realm=\"https://a.example.com\"",
            "\"",
            "=",
            "Basic\u{e9}",
            "Basic\"x\"",
        ] {
            assert_eq!(parse(&[header]), Err(ChallengeError::Malformed), "{header}");
        }
        // A parameter does not belong to what another header says.
        let split = [format!("Bearer realm={REALM}"), "service=x".to_owned()];
        assert_eq!(parse(&[&split[0], &split[1]]), Err(ChallengeError::Malformed));
        assert_eq!(
            parse(&[&format!("Basic realm=\"{}\"", "a".repeat(MAX_HEADER_BYTES))]),
            Err(ChallengeError::Malformed)
        );
        assert_eq!(parse(&[&"Basic,".repeat(MAX_CHALLENGES)]), Ok(Challenge::Basic));
        assert_eq!(parse(&[&"Basic,".repeat(MAX_CHALLENGES + 1)]), Err(ChallengeError::Malformed));
        let scopes = |count: usize| parse(&[&format!("Basic {}", "scope=a,".repeat(count))]);
        assert_eq!(
            (scopes(MAX_CHALLENGES), scopes(MAX_CHALLENGES + 1)),
            (Ok(Challenge::Basic), Err(ChallengeError::Malformed))
        );
        let latin_1 = b"Bearer realm=\"https://r.example.com/f\xfcr\"".as_slice();
        assert_eq!(Challenge::parse([latin_1].into_iter()), Err(ChallengeError::Realm));
    }

    /// A parameter as it may be written, and what divides it from the next.
    fn parameter(name: &'static str, value: &'static str) -> impl Strategy<Value = String> {
        let quotes = prop_oneof![Just(true), Just(false)];
        let equals = prop_oneof![Just("="), Just(" ="), Just("= "), Just(" = ")];
        (quotes, equals).prop_map(move |(quoted, equals)| {
            // Behind a space, a value with an equals sign in it would be the next parameter.
            let quote = if quoted || (equals.ends_with(' ') && value.contains('=')) { "\"" } else { "" };
            format!("{name}{equals}{quote}{value}{quote}")
        })
    }

    fn divider() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just(","), Just(", "), Just(" ,"), Just(" "), Just(";"), Just("; "), Just(",,"), Just("\t")]
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_always_ends(text in "\\PC{0,60}|[a-zB \",;=\\\\]{0,60}") {
            let _ = parse(&[&text, &text]);
        }

        /// However it is divided and quoted, in whatever order, beside whatever else.
        #[test]
        fn what_is_meant_in_one_way_is_read_so(
            realm in parameter("realm", REALM),
            service in parameter("Service", "registry.example.com"),
            scope in parameter("scope", "repository:acme/web:pull"),
            again in any::<bool>(),
            error in prop_oneof![Just(""), Just("error="), Just("error=\"\"")],
            order in Just([0_usize, 1, 2, 3, 4]).prop_shuffle(),
            dividers in proptest::collection::vec(divider(), 7),
            before in prop_oneof![Just(""), Just("Negotiate, "), Just("Negotiate YWJj==, "), Just("Basic realm=\"x\" ")],
            behind in prop_oneof![Just(""), Just("Basic realm=x"), Just("Negotiate")],
        ) {
            let parts = [realm, service, scope.clone(), if again { scope } else { String::new() }, error.to_owned()];
            let mut header = format!("{before}Bearer ");
            for (place, divider) in order.iter().zip(&dividers) {
                if !parts[*place].is_empty() {
                    header += &parts[*place];
                    header += divider;
                }
            }
            // A word without a comma before it could be one more of a value without quotes.
            header += ",";
            header += behind;
            prop_assert_eq!(parse(&[&header]), Ok(bearer(REALM, Some("registry.example.com"))), "{}", header);
        }
    }
}
