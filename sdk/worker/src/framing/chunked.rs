//! The chunked coding, as far as its end.

use super::Malformed;

/// Longer extensions or trailers than this are an attack.
const MOST_EXTRA: u32 = 16 * 1024;

/// How far a chunked body has come.
#[derive(Debug, Clone)]
pub(crate) struct Chunked {
    at: At,
    /// Size of the chunk whose size line is being read, then what is left of it.
    size: u64,
    /// Bytes of extensions and trailers so far.
    extra: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the first digit.
    Start,
    Size,
    /// White space behind the size.
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the beginning of a line behind the last chunk.
    Line,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

impl Chunked {
    pub(crate) fn new() -> Self {
        Self { at: At::Start, size: 0, extra: 0 }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.at == At::End
    }

    /// Follows the body through `bytes`, and returns how many of them belong to it: all, unless it
    /// ends there.
    pub(crate) fn follow(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut place = 0;
        while place < bytes.len() && self.at != At::End {
            if self.at == At::Data {
                let there = bytes.len() - place;
                let taken = usize::try_from(self.size).map_or(there, |size| size.min(there));
                place += taken;
                self.size -= taken as u64;
                if self.size == 0 {
                    self.at = At::DataCr;
                }
            } else {
                self.at = self.step(bytes[place])?;
                place += 1;
            }
        }
        Ok(place)
    }

    /// One byte outside the data.
    fn step(&mut self, byte: u8) -> Result<At, Malformed> {
        Ok(match (self.at, byte) {
            (At::Start | At::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).map(u64::from).ok_or(Malformed)?;
                let size = self.size.checked_mul(16).and_then(|size| size.checked_add(digit));
                self.size = size.ok_or(Malformed)?;
                At::Size
            }
            (At::Size | At::Space, b' ' | b'\t') => At::Space,
            (At::Size | At::Space, b';') => At::Extension,
            (At::Size | At::Space | At::Extension, b'\r') => At::SizeLf,
            (At::Extension, byte) if byte != b'\n' => self.more(At::Extension)?,
            (At::SizeLf, b'\n') if self.size == 0 => At::Line,
            (At::SizeLf, b'\n') => At::Data,
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Start,
            (At::Line, b'\r') => At::EndLf,
            (At::Trailer, b'\r') => At::TrailerLf,
            (At::Line | At::Trailer, _) => self.more(At::Trailer)?,
            (At::TrailerLf, b'\n') => At::Line,
            (At::EndLf, b'\n') => At::End,
            _ => return Err(Malformed),
        })
    }

    fn more(&mut self, at: At) -> Result<At, Malformed> {
        self.extra += 1;
        if self.extra > MOST_EXTRA { Err(Malformed) } else { Ok(at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the body ends, looked at in pieces.
    fn end(pieces: &[&[u8]]) -> Result<Option<usize>, Malformed> {
        let mut chunked = Chunked::new();
        let mut place = 0;
        for piece in pieces {
            place += chunked.follow(piece)?;
        }
        Ok(chunked.has_ended().then_some(place))
    }

    const BODIES: [&[u8]; 6] = [
        b"0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5;name=value;x=\"y\"\r\nhello\r\n000\r\n\r\n",
        b"a  \r\n0123456789\r\n1 ;x\r\n!\r\n0\r\nTrailer: 1\r\nOther: 2\r\n\r\n",
        b"3\r\n\r\n0\r\n0;last\r\n\r\n",
        b"F\r\n0\r\n\r\n0\r\n\r\n01234\r\n0\r\n\r\n",
    ];

    #[test]
    fn the_end_is_found_wherever_the_bytes_are_cut() {
        for body in BODIES {
            let mut bytes = body.to_vec();
            bytes.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
            for cut in 0..=bytes.len() {
                let (front, back) = bytes.split_at(cut);
                assert_eq!(end(&[front, back]), Ok(Some(body.len())), "{}", body.escape_ascii());
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(end(&single), Ok(Some(body.len())));
            for length in 0..body.len() {
                assert_eq!(end(&[&body[..length]]), Ok(None), "{}", body[..length].escape_ascii());
            }
        }
    }

    #[test]
    fn what_a_server_would_refuse_has_no_end() {
        for body in [
            b"\r\n".as_slice(),
            b"x\r\n",
            b"5\nhello",
            b"5\r\nhello0",
            b"5\r\nhello\n",
            b"5 5\r\n",
            b"-1\r\n",
            b"0x5\r\n",
            b"10000000000000000\r\n",
            b"0\r\n\rx",
            b"1;x\ny\r\n",
        ] {
            assert_eq!(end(&[body]), Err(Malformed), "{}", body.escape_ascii());
        }
        let long = [b"1;".to_vec(), vec![b'x'; 20_000]].concat();
        assert_eq!(end(&[&long]), Err(Malformed));
    }
}
