//! Flat JSON objects of texts and whole numbers: all that a failed batch takes, and so all that is read.

use std::fmt::{Display, Write as _};
use std::str::Chars;

/// Writes an object, field after field.
#[derive(Debug)]
pub(super) struct Writer(String);

impl Writer {
    pub(super) fn new() -> Self {
        Self("{".to_owned())
    }

    pub(super) fn number(&mut self, name: &str, value: impl Display) {
        self.name(name);
        let _ = write!(self.0, "{value}"); // a `String` takes everything
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        self.quote(value);
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.quote(name);
        self.0.push(':');
    }

    fn quote(&mut self, text: &str) {
        self.0.push('"');
        for character in text.chars() {
            match character {
                '"' | '\\' => self.0.extend(['\\', character]),
                '\n' => self.0.push_str("\\n"),
                '\0'..='\x1f' => {
                    let _ = write!(self.0, "\\u{:04x}", u32::from(character));
                }
                other => self.0.push(other),
            }
        }
        self.0.push('"');
    }
}

/// An object that was read.
#[derive(Debug)]
pub(super) struct Object(Vec<(String, Value)>);

#[derive(Debug)]
enum Value {
    Text(String),
    Number(i128),
}

impl Object {
    /// Nothing for what is no flat object of texts and whole numbers, or names a field twice.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader(text.chars());
        let mut fields: Vec<(String, Value)> = Vec::new();
        reader.expect('{')?;
        loop {
            let name = reader.text()?;
            reader.expect(':')?;
            if fields.iter().any(|(known, _)| *known == name) {
                return None;
            }
            fields.push((name, reader.value()?));
            match reader.token()? {
                ',' => {}
                '}' => break,
                _ => return None,
            }
        }
        reader.token().is_none().then_some(Self(fields))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.value(name)? {
            Value::Text(text) => Some(text),
            Value::Number(_) => None,
        }
    }

    pub(super) fn number<N: TryFrom<i128>>(&self, name: &str) -> Option<N> {
        match self.value(name)? {
            Value::Number(number) => N::try_from(*number).ok(),
            Value::Text(_) => None,
        }
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

struct Reader<'a>(Chars<'a>);

impl Reader<'_> {
    /// The next character that is no white space.
    fn token(&mut self) -> Option<char> {
        self.0.find(|character| !matches!(character, ' ' | '\t' | '\r' | '\n'))
    }

    fn expect(&mut self, wanted: char) -> Option<()> {
        (self.token()? == wanted).then_some(())
    }

    fn value(&mut self) -> Option<Value> {
        let before = self.0.clone();
        let first = self.token()?;
        if first == '"' {
            self.0 = before;
            return self.text().map(Value::Text);
        }
        let mut digits = String::from(first);
        while let Some(digit) = self.0.clone().next().filter(char::is_ascii_digit) {
            digits.push(digit);
            self.0.next();
        }
        let unsigned = digits.strip_prefix('-').unwrap_or(&digits);
        let is_plain = unsigned == "0" || unsigned.starts_with(|digit: char| matches!(digit, '1'..='9'));
        is_plain.then(|| digits.parse().ok().map(Value::Number))?
    }

    fn text(&mut self) -> Option<String> {
        self.expect('"')?;
        let mut text = String::new();
        loop {
            match self.0.next()? {
                '"' => return Some(text),
                '\\' => text.push(self.escaped()?),
                '\0'..='\x1f' => return None,
                other => text.push(other),
            }
        }
    }

    fn escaped(&mut self) -> Option<char> {
        Some(match self.0.next()? {
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            same @ ('"' | '\\' | '/') => same,
            'u' => self.unicode()?,
            _ => return None,
        })
    }

    /// Of a character above `\uffff` two halves are written.
    fn unicode(&mut self) -> Option<char> {
        let high = self.code_unit()?;
        if !(0xd800..0xdc00).contains(&high) {
            return char::from_u32(high);
        }
        let is_next = self.0.next()? == '\\' && self.0.next()? == 'u';
        let low = self.code_unit().filter(|low| is_next && (0xdc00..0xe000).contains(low))?;
        char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00))
    }

    fn code_unit(&mut self) -> Option<u32> {
        let mut unit = 0;
        for _ in 0..4 {
            unit = unit * 16 + self.0.next()?.to_digit(16)?;
        }
        Some(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_escape_is_read() {
        let text = |json: &str| Object::parse(json)?.text("a").map(str::to_owned);
        assert_eq!(
            text(r#"{"a":"\b\f\n\r\t\"\\\/\u00e9\uD83D\uDE00"}"#).as_deref(),
            Some("\u{8}\u{c}\n\r\t\"\\/\u{e9}\u{1f600}")
        );
        for wrong in [
            r#"{"a":"\u12"}"#,
            r#"{"a":"\ud83d"}"#,
            r#"{"a":"\ud83dx"}"#,
            r#"{"a":"\ud83d\u0041"}"#,
            "{\"a\":\"\n\"}",
            "{}",
            "",
        ] {
            assert_eq!(text(wrong), None, "{wrong}");
        }
    }
}
