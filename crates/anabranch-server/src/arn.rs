//! Names of resources across accounts and regions: `arn:aws:kinesis:REGION:ACCOUNT:stream/NAME`, and behind it `/consumer/NAME:SECONDS`.

/// The parts of a stream's or a consumer's ARN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arn<'a> {
    pub(crate) region: &'a str,
    pub(crate) account: &'a str,
    pub(crate) stream: &'a str,
    /// Name and second of creation.
    pub(crate) consumer: Option<(&'a str, i64)>,
}

impl<'a> Arn<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let (arn, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
        let (region, account) = (parts.next()?, parts.next()?);
        let resource = parts.next()?.strip_prefix("stream/")?;
        let is_kinesis = arn == "arn" && partition.starts_with("aws") && service == "kinesis";
        if !is_kinesis || !is_account(account) || resource.is_empty() || resource.contains(char::is_whitespace) {
            return None;
        }
        let (stream, consumer) = match resource.split_once("/consumer/") {
            None => (resource, None),
            Some((stream, consumer)) => {
                let (name, second) = consumer.rsplit_once(':')?;
                (stream, Some((name, second.parse().ok()?)))
            }
        };
        Some(Self { region, account, stream, consumer })
    }
}

pub(crate) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

pub(crate) fn is_stream(text: &str) -> bool {
    Arn::parse(text).is_some()
}

pub(crate) fn is_consumer(text: &str) -> bool {
    Arn::parse(text).is_some_and(|arn| arn.consumer.is_some())
}

/// Partitions go by the names of their regions.
pub(crate) fn of_stream(region: &str, account: &str, name: &str) -> String {
    let partition = match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    };
    format!("arn:{partition}:kinesis:{region}:{account}:stream/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_come_apart() {
        let stream = of_stream("us-east-1", "000000000000", "clicks");
        assert_eq!(stream, "arn:aws:kinesis:us-east-1:000000000000:stream/clicks");
        let consumer = format!("{stream}/consumer/fast:1795408017");
        let arn = Arn::parse(&consumer).unwrap();
        assert_eq!((arn.region, arn.account, arn.stream), ("us-east-1", "000000000000", "clicks"));
        assert_eq!(arn.consumer, Some(("fast", 1_795_408_017)));
        assert!(is_stream(&stream) && !is_consumer(&stream) && is_consumer(&consumer));
        for text in [
            "",
            "arn:aws:kinesis:r:1:stream/x",
            "arn:aws:s3:r:000000000000:stream/x",
            "arn:aws:kinesis:r:000000000000:stream/",
        ] {
            assert!(!is_stream(text), "{text}");
        }
    }
}
