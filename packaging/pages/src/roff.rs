//! Text as roff takes it: nothing in it is a request, and what a user types can be copied.

/// One line of text.
pub(crate) fn line(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// Paragraphs, with an empty line between them.
pub(crate) fn paragraphs(text: &str) -> String {
    let lines = text.trim().lines().map(|it| if it.trim().is_empty() { ".PP".to_owned() } else { line(it.trim()) });
    lines.map(|it| it + "\n").collect()
}

/// Lines as they are.
pub(crate) fn verbatim(text: &str) -> String {
    let lines: String = text.lines().map(|it| line(it) + "\n").collect();
    format!(".nf\n{lines}.fi\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_a_request() {
        assert_eq!(line(".so --run \\x"), "\\&.so \\-\\-run \\ex");
        assert_eq!(paragraphs("a\n\n'b\n"), "a\n.PP\n\\&'b\n");
        assert_eq!(verbatim("a\nb"), ".nf\na\nb\n.fi\n");
    }
}
