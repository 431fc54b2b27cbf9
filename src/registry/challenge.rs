//! `WWW-Authenticate`: how a registry wants to be asked (RFC 9110, section 11.6.1; distribution's token specification).

use url::Url;

/// Nothing longer is read.
const LONGEST: usize = 8 << 10;
/// Challenges that are read.
const MOST: usize = 16;
/// The longest realm and the longest service.
const LONGEST_REALM: usize = 2048;

/// What a registry wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token from the realm.
    Bearer {
        /// Where tokens come from: http or https, without user information.
        realm: Url,
        /// What the realm calls this registry.
        service: Option<Box<str>>,
    },
}

/// Why a header is no challenge that can be answered.
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
    /// Bytes that it takes, roughly.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Basic => 0,
            Self::Bearer { realm, service } => {
                realm.as_str().len() + service.as_ref().map_or(0, |service| service.len())
            }
        }
    }

    /// Reads all such headers of an answer. A token is preferred where there is a choice: it is worth less than a password.
    pub(crate) fn parse<'a>(headers: impl Iterator<Item = &'a [u8]>) -> Result<Self, ChallengeError> {
        let mut found = Vec::new();
        for header in headers {
            let text = std::str::from_utf8(header).map_err(|_| ChallengeError::Malformed)?;
            if text.len() > LONGEST {
                return Err(ChallengeError::Malformed);
            }
            Reader { rest: text }.challenges(&mut found)?;
        }
        if found.is_empty() {
            return Err(ChallengeError::Missing);
        }
        if let Some(bearer) = found.iter().find(|raw| raw.scheme.eq_ignore_ascii_case("Bearer")) {
            return bearer.bearer();
        }
        let basic = found.iter().any(|raw| raw.scheme.eq_ignore_ascii_case("Basic"));
        if basic { Ok(Self::Basic) } else { Err(ChallengeError::UnknownScheme) }
    }
}

/// One challenge as it stands there.
struct Raw<'a> {
    scheme: &'a str,
    parameters: Vec<(&'a str, String)>,
}

impl Raw<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn bearer(&self) -> Result<Challenge, ChallengeError> {
        let text = self.get("realm").filter(|realm| realm.len() <= LONGEST_REALM).ok_or(ChallengeError::Realm)?;
        let mut realm = Url::parse(text).map_err(|_| ChallengeError::Realm)?;
        let bare = realm.username().is_empty() && realm.password().is_none();
        if !matches!(realm.scheme(), "http" | "https") || !bare || !realm.has_host() {
            return Err(ChallengeError::Realm);
        }
        realm.set_fragment(None);
        let service = self.get("service").filter(|service| !service.is_empty());
        if service.is_some_and(|service| service.len() > LONGEST_REALM) {
            return Err(ChallengeError::Malformed);
        }
        Ok(Challenge::Bearer { realm, service: service.map(Into::into) })
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn challenges(&mut self, found: &mut Vec<Raw<'a>>) -> Result<(), ChallengeError> {
        self.skip(&[' ', '\t', ',']);
        while !self.rest.is_empty() {
            if found.len() == MOST {
                return Err(ChallengeError::Malformed);
            }
            let scheme = self.token().ok_or(ChallengeError::Malformed)?;
            let spaces = self.skip(&[' ', '\t']);
            if spaces == 0 && !self.rest.is_empty() && !self.rest.starts_with(',') {
                return Err(ChallengeError::Malformed);
            }
            let mut raw = Raw { scheme, parameters: Vec::new() };
            self.parameters(&mut raw)?;
            found.push(raw);
        }
        Ok(())
    }

    /// Reads parameters until the next challenge begins: a word that no equals sign follows.
    fn parameters(&mut self, raw: &mut Raw<'a>) -> Result<(), ChallengeError> {
        let mut first = true;
        loop {
            let before = self.rest;
            let Some(key) = self.token() else {
                // token68 has a slash, which no other word has.
                if first {
                    self.token68();
                }
                return self.end();
            };
            self.skip(&[' ', '\t']);
            let Some(rest) = self.rest.strip_prefix('=') else {
                self.rest = before;
                // "Negotiate YWJj" or the next scheme; after a comma it is the latter.
                return if first && self.token68() { self.end() } else { Ok(()) };
            };
            self.rest = rest;
            self.skip(&[' ', '\t']);
            let Some(value) = self.value()? else {
                // "Negotiate YWJj==" is one word that ends in equals signs.
                self.rest = before;
                return if first && self.token68() { self.end() } else { Err(ChallengeError::Malformed) };
            };
            if raw.get(key).is_some() || raw.parameters.len() == MOST {
                return Err(ChallengeError::Malformed);
            }
            raw.parameters.push((key, value));
            self.end()?;
            first = false;
        }
    }

    /// What follows a parameter: the end, or a comma.
    fn end(&mut self) -> Result<(), ChallengeError> {
        self.skip(&[' ', '\t']);
        if !self.rest.is_empty() && !self.rest.starts_with(',') {
            return Err(ChallengeError::Malformed);
        }
        self.skip(&[' ', '\t', ',']);
        Ok(())
    }

    fn value(&mut self) -> Result<Option<String>, ChallengeError> {
        let Some(mut rest) = self.rest.strip_prefix('"') else {
            return Ok(self.token().map(str::to_owned));
        };
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
        Ok(Some(value))
    }

    fn token(&mut self) -> Option<&'a str> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let length = self.rest.bytes().take_while(|&byte| word(byte)).count();
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        (length > 0).then_some(token)
    }

    fn token68(&mut self) -> bool {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        let words = self.rest.bytes().take_while(|&byte| word(byte)).count();
        let equals = self.rest[words..].bytes().take_while(|&byte| byte == b'=').count();
        self.rest = &self.rest[words + equals..];
        words > 0
    }

    fn skip(&mut self, what: &[char]) -> usize {
        let rest = self.rest.trim_start_matches(what);
        let skipped = self.rest.len() - rest.len();
        self.rest = rest;
        skipped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        assert_eq!(parse(&[&format!("Negotiate, Basic realm=\"a\\\"b\" , {hub}")]).unwrap(), expected);
        assert_eq!(parse(&[&format!("Negotiate YWJj==, {hub}")]).unwrap(), expected);
        assert_eq!(
            parse(&["bearer REALM=\"http://r.example.com/t#f\""]).unwrap(),
            bearer("http://r.example.com/t", None)
        );
        assert_eq!(parse(&["Basic"]).unwrap(), Challenge::Basic);
        assert_eq!(parse(&["BASIC realm=\"Registry Realm\", charset=\"UTF-8\""]).unwrap(), Challenge::Basic);
    }

    #[test]
    fn what_no_registry_should_say_is_refused() {
        assert_eq!(parse(&[]), Err(ChallengeError::Missing));
        assert_eq!(parse(&["  , "]), Err(ChallengeError::Missing));
        assert_eq!(parse(&["Negotiate"]), Err(ChallengeError::UnknownScheme));
        for header in [
            "Bearer service=x",
            "Bearer realm=x",
            "Bearer realm=\"file:///etc/passwd\"",
            "Bearer realm=\"https://user:pass@r.example.com/\"",
            "Bearer realm=\"\"",
            "Bearer realm==",
        ] {
            assert_eq!(parse(&[header]), Err(ChallengeError::Realm), "{header}");
        }
        for header in [
            "Bearer realm=\"https://r.example.com",
            "Bearer realm=\"https://r.example.com\\",
            "Bearer realm=\"a\" realm2=\"b\"",
            "Bearer realm=\"a\",realm=\"b\"",
            "Bearer realm=\"a\u{1}\"",
            "\"",
            "=",
            "Basic\u{e9}",
        ] {
            assert_eq!(parse(&[header]), Err(ChallengeError::Malformed), "{header}");
        }
        assert_eq!(parse(&[&format!("Basic realm=\"{}\"", "a".repeat(LONGEST))]), Err(ChallengeError::Malformed));
        assert_eq!(parse(&[&"Basic,".repeat(MOST + 1)]), Err(ChallengeError::Malformed));
        assert_eq!(Challenge::parse([b"Basic \xff".as_slice()].into_iter()), Err(ChallengeError::Malformed));
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_always_ends(text in "\\PC{0,60}|[a-zB \",=\\\\]{0,60}") {
            let _ = parse(&[&text, &text]);
        }
    }
}
