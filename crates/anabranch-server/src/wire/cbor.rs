//! Reading CBOR (RFC 8949), with what Jackson writes: maps, lists and strings of indefinite length. Tags are passed over: the only one in use marks times.

use std::borrow::Cow;

use minicbor::Decoder;
use minicbor::data::Type;
use minicbor::decode::Error;

use super::value::Value;
use crate::limits::{MAX_BODY_DEPTH, MAX_BODY_VALUES};

/// Reads CBOR; nothing if it is none, or too much, or if something follows it.
pub(crate) fn decode(body: &[u8]) -> Option<Value<'_>> {
    let mut reader = Reader { decoder: Decoder::new(body), left: MAX_BODY_VALUES };
    let value = reader.value(MAX_BODY_DEPTH).ok()?;
    (reader.decoder.position() == body.len()).then_some(value)
}

struct Reader<'a> {
    decoder: Decoder<'a>,
    /// How many values may still come.
    left: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Value<'a>, Error> {
        let depth = depth.checked_sub(1).ok_or_else(|| Error::message("too deep"))?;
        count_down(&mut self.left)?;
        let decoder = &mut self.decoder;
        Ok(match decoder.datatype()? {
            Type::Null | Type::Undefined => {
                decoder.skip()?;
                Value::Null
            }
            Type::Bool => Value::Bool(decoder.bool()?),
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => {
                Value::Integer(i64::try_from(decoder.u64()?).unwrap_or(i64::MAX))
            }
            Type::I8 | Type::I16 | Type::I32 | Type::I64 => Value::Integer(decoder.i64()?),
            Type::F16 | Type::F32 | Type::F64 => Value::Float(decoder.f64()?),
            Type::String | Type::StringIndef => Value::Text(self.text()?),
            Type::Bytes => Value::Bytes(Cow::Borrowed(decoder.bytes()?)),
            Type::BytesIndef => {
                let mut bytes = Vec::new();
                for piece in decoder.bytes_iter()? {
                    bytes.extend_from_slice(piece?);
                    count_down(&mut self.left)?;
                }
                Value::Bytes(Cow::Owned(bytes))
            }
            Type::Array | Type::ArrayIndef => Value::List(self.list(depth)?),
            Type::Map | Type::MapIndef => Value::Map(self.map(depth)?),
            Type::Tag => {
                decoder.tag()?;
                self.value(depth)?
            }
            other => return Err(Error::type_mismatch(other)),
        })
    }

    fn text(&mut self) -> Result<Cow<'a, str>, Error> {
        match self.decoder.datatype()? {
            Type::StringIndef => {
                let mut text = String::new();
                for piece in self.decoder.str_iter()? {
                    text += piece?;
                    count_down(&mut self.left)?;
                }
                Ok(Cow::Owned(text))
            }
            _ => self.decoder.str().map(Cow::Borrowed),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Value<'a>>, Error> {
        let mut count = self.decoder.array()?;
        let mut values = Vec::new(); // the count is the body's word: it is not allocated by
        while self.has_more(&mut count)? {
            values.push(self.value(depth)?);
        }
        Ok(values)
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Cow<'a, str>, Value<'a>)>, Error> {
        let mut count = self.decoder.map()?;
        let mut members = Vec::new();
        while self.has_more(&mut count)? {
            members.push((self.text()?, self.value(depth)?));
        }
        Ok(members)
    }

    /// Whether another element follows: by its count, or until a break.
    fn has_more(&mut self, count: &mut Option<u64>) -> Result<bool, Error> {
        match count {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if self.decoder.datatype()? == Type::Break => {
                self.decoder.skip()?;
                Ok(false)
            }
            None => Ok(true),
        }
    }
}

fn count_down(left: &mut usize) -> Result<(), Error> {
    *left = left.checked_sub(1).ok_or_else(|| Error::message("too many values"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definite_and_indefinite_forms_are_the_same() {
        // {"a": h'0102', "b": [1, -1], "c": 1(5)}
        let definite = b"\xa3\x61a\x42\x01\x02\x61b\x82\x01\x20\x61c\xc1\x05";
        let indefinite = b"\xbf\x7f\x61a\xff\x5f\x41\x01\x41\x02\xff\x61b\x9f\x01\x20\xff\x61c\xc1\x05\xff";
        let expected = decode(definite).unwrap();
        assert_eq!(decode(indefinite).unwrap(), expected);
        let Value::Map(members) = expected else { panic!("no map") };
        assert!(matches!(&members[0].1, Value::Bytes(Cow::Borrowed([1, 2]))));
        assert_eq!(members[2].1, Value::Integer(5));
    }

    #[test]
    fn what_is_cut_off_or_too_much_is_no_body() {
        let whole = b"\xbf\x61a\x5f\x41\x01\xff\xff";
        assert!(decode(whole).is_some());
        for end in 0..whole.len() {
            assert!(decode(&whole[..end]).is_none(), "{end}");
        }
        assert!(decode(&vec![0x81; 100_000]).is_none(), "lists in lists");
        assert!(decode(&vec![0xc1; 100_000]).is_none(), "tags of tags");
        for (begin, piece) in [(0x5f, 0x40), (0x7f, 0x60)] {
            let pieces = |count: usize| [vec![begin], vec![piece; count], vec![0xff]].concat();
            assert!(decode(&pieces(MAX_BODY_VALUES - 1)).is_some(), "a string in pieces");
            assert!(decode(&pieces(MAX_BODY_VALUES)).is_none(), "too many pieces");
        }
        assert!(decode(b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x01").is_none(), "a count that is not there");
        assert!(decode(b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff\x01").is_none(), "bytes that are not there");
        assert!(decode(b"\xa0\xa0").is_none(), "something behind it");
    }
}
