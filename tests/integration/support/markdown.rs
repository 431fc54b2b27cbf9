//! Examples in documentation.

/// The contents of all fenced blocks of this language, in order.
pub(crate) fn code_blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut current: Option<(bool, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), current.as_mut()) {
            (Some(_), Some(_)) => {
                blocks.extend(current.take().filter(|(wanted, _)| *wanted).map(|(_, block)| block));
            }
            (Some(info), None) => current = Some((info == language, String::new())),
            (None, Some((_, block))) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}
