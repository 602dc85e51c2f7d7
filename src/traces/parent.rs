//! The trace that a request belongs to, by its header `traceparent` (W3C Trace Context). Pure.

use crate::types::Head;

/// Who asked, as far as they trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parent {
    /// 32 hexadecimal digits.
    pub trace: String,
    /// 16 hexadecimal digits.
    pub span: String,
    /// Whether they record it themselves.
    pub sampled: bool,
}

impl Parent {
    /// The parent, when there is exactly one and it is well formed; else the request begins a trace.
    pub(super) fn of(head: &Head) -> Option<Self> {
        let mut values = head.header("traceparent");
        let value = values.next()?;
        if values.next().is_some() { None } else { Self::parse(value) }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().splitn(5, '-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // Version 0 has four parts; later ones may have more behind them.
        let sound = digits(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
        let known = digits(trace, 32) && digits(span, 16) && digits(flags, 2);
        let empty = |id: &str| id.bytes().all(|byte| byte == b'0');
        if !sound || !known || empty(trace) || empty(span) {
            return None;
        }
        let sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
        Some(Self { trace: trace.to_owned(), span: span.to_owned(), sampled })
    }
}

/// So many hexadecimal digits, in lower case.
fn digits(text: &str, count: usize) -> bool {
    text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_well_formed_one_is_a_parent() {
        for (text, sampled) in [
            (format!("00-{TRACE}-{SPAN}-01"), true),
            (format!(" 00-{TRACE}-{SPAN}-00 "), false),
            (format!("cc-{TRACE}-{SPAN}-03-what-comes-later"), true),
        ] {
            let parent = Parent { trace: TRACE.into(), span: SPAN.into(), sampled };
            assert_eq!(Parent::parse(&text), Some(parent), "{text}");
        }
    }

    #[test]
    fn anything_else_is_none() {
        let zeros = "0".repeat(32);
        for text in [
            String::new(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", &TRACE[1..]),
            format!("00-{TRACE}-{SPAN}-1x"),
            "é".repeat(40),
        ] {
            assert_eq!(Parent::parse(&text), None, "{text}");
        }
        let header = ("traceparent".to_owned(), format!("00-{TRACE}-{SPAN}-01"));
        let head = |count| Head::compose("GET", "/", &vec![header.clone(); count]).unwrap();
        assert!(Parent::of(&head(1)).is_some());
        assert!(Parent::of(&head(2)).is_none(), "nobody can say which of two is meant");
    }
}
