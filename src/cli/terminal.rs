//! Output to the terminal: colours only if the user sees them, and no control characters from outside.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
};

use super::exit_status::CliError;
use crate::redact::shown_text;

/// The meaning of a piece of text, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Bad,
    Unsure,
    Quiet,
}

/// The use of colours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Colours(bool);

impl Colours {
    /// No colours.
    #[cfg(test)]
    pub(crate) const OFF: Self = Self(false);

    /// Decides by the stream and <https://no-color.org>.
    pub(crate) fn of(stream: &impl IsTerminal) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        Self(stream.is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb"))
    }

    /// Returns the text in the colour of its tone.
    pub(crate) fn paint<T: fmt::Display>(self, tone: Tone, text: T) -> String {
        let code = match tone {
            Tone::Good => "1;32",
            Tone::Bad => "1;31",
            Tone::Unsure => "1;33",
            Tone::Quiet => "2",
        };
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_string() }
    }
}

/// Returns a text from outside (a signature's name, for example) on one line and without control characters.
pub(crate) fn plain(text: &str) -> String {
    // Marks that change the writing direction could make a text look like another one.
    let strange = |character: char| {
        character.is_control()
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|character| if strange(character) { char::REPLACEMENT_CHARACTER } else { character }).collect()
}

/// Prints a result to standard output. If the reader has closed it (`| head -1`), the result's status stands. Any other
/// error is a failure, since the result was not delivered.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    print_to(&mut io::stdout().lock(), text)
}

fn print_to(stream: &mut impl Write, text: &str) -> Result<(), CliError> {
    match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::undecided(format_args!("the result can't be written to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints the error that ended a command. If standard error is closed, the exit status still reports the failure.
pub(crate) fn complain(failure: &CliError) {
    let error = Colours::of(&io::stderr()).paint(Tone::Bad, "error:");
    let _ = writeln!(io::stderr(), "{error} {failure}");
}

/// Prints a usage error in clap's words, except for the secrets of URLs.
pub(crate) fn complain_of_usage(error: &clap::Error) {
    let text = error.render();
    let text = if Colours::of(&io::stderr()).0 { text.ansi().to_string() } else { text.to_string() };
    let _ = write!(io::stderr(), "{}", shown_text(&text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_can_not_move_the_cursor() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{202e}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
    }

    #[test]
    fn without_colours_text_is_as_it_was() {
        assert_eq!(Colours::OFF.paint(Tone::Bad, "no"), "no");
        assert_eq!(Colours(true).paint(Tone::Bad, "no"), "\u{1b}[1;31mno\u{1b}[0m");
    }
}
