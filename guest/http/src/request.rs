//! What a client asks for. Any bytes may come: each head is read wholly or refused, and nothing here can fail otherwise.

/// Bytes of a request's head, at most.
pub(crate) const HEAD_BYTES_MAX: usize = 2048;

/// A request whose head has come wholly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Request<'a> {
    /// `GET`, or another word.
    pub(crate) method: &'a [u8],
    /// What is asked for, from its `/` on.
    pub(crate) path: &'a [u8],
    /// Whether the client may ask again over this connection.
    pub(crate) keep_alive: bool,
    /// Bytes of the head: what follows belongs to the next request.
    pub(crate) head_bytes: usize,
}

/// Why a head is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// It is not one of HTTP/1.
    Malformed,
    /// It does not end within [`HEAD_BYTES_MAX`].
    TooLong,
}

/// Reads the head that these bytes begin with; nothing if they are only a part of one.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<Request<'_>>, Refused> {
    let mut lines = Lines { bytes, at: 0 };
    let Some(first) = lines.next_line()? else { return unfinished(bytes) };
    let mut request = first_line(first)?;
    let (mut hosts, mut body) = (0, false);
    loop {
        let Some(line) = lines.next_line()? else { return unfinished(bytes) };
        if line.is_empty() {
            break;
        }
        let (name, value) = header(line).ok_or(Refused::Malformed)?;
        if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
        } else if name.eq_ignore_ascii_case(b"connection") {
            if has_token(value, b"close") {
                request.keep_alive = false;
            } else if has_token(value, b"keep-alive") {
                request.keep_alive = true;
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding")
            || (name.eq_ignore_ascii_case(b"content-length") && value != b"0")
        {
            // What follows is no request, and we do not look at it.
            body = true;
        }
    }
    // HTTP/1.1 demands to be told which host is meant, once.
    if hosts > 1 || (hosts == 0 && request.version_1_1) {
        return Err(Refused::Malformed);
    }
    let keep_alive = request.keep_alive && !body;
    Ok(Some(Request { method: request.method, path: request.path, keep_alive, head_bytes: lines.at }))
}

/// More may come, if there is room for it.
fn unfinished(bytes: &[u8]) -> Result<Option<Request<'_>>, Refused> {
    if bytes.len() >= HEAD_BYTES_MAX { Err(Refused::TooLong) } else { Ok(None) }
}

struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// The next line without its end; nothing if the end has not come. Bytes that no head contains are refused at once.
    fn next_line(&mut self) -> Result<Option<&'a [u8]>, Refused> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let is_text = |byte: &u8| *byte == b'\t' || (b' '..0x7f).contains(byte) || *byte >= 0x80;
        let Some(end) = rest.iter().position(|byte| !is_text(byte)) else { return Ok(None) };
        match rest.get(end..) {
            Some([b'\r', b'\n', ..]) => {
                self.at += end + 2;
                Ok(rest.get(..end))
            }
            Some([b'\r']) => Ok(None),
            _ => Err(Refused::Malformed),
        }
    }
}

struct FirstLine<'a> {
    method: &'a [u8],
    path: &'a [u8],
    version_1_1: bool,
    keep_alive: bool,
}

fn first_line(line: &[u8]) -> Result<FirstLine<'_>, Refused> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(path), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refused::Malformed);
    };
    let version_1_1 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return Err(Refused::Malformed),
    };
    if !is_token(method) || path.first() != Some(&b'/') {
        return Err(Refused::Malformed);
    }
    Ok(FirstLine { method, path, version_1_1, keep_alive: version_1_1 })
}

/// The name and the value of a header.
fn header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = line.get(..colon).filter(|name| is_token(name))?;
    Some((name, line.get(colon + 1..)?.trim_ascii()))
}

fn is_token(word: &[u8]) -> bool {
    let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !word.is_empty() && word.iter().all(is_of_token)
}

/// Whether a list, its parts between commas, has this word.
fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
}
