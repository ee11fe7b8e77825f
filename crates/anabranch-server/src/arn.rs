//! Names of resources across accounts and regions: `arn:aws:kinesis:REGION:ACCOUNT:stream/NAME`, and behind it `/consumer/NAME:SECONDS`; `queue/ID` in its place for a queue, whose
//! ARN tells neither its name nor its stream.

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
        let (region, account, resource) = split(text)?;
        let resource = named(resource, "stream/")?;
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

/// The parts of a queue's ARN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueArn<'a> {
    pub(crate) region: &'a str,
    pub(crate) account: &'a str,
    pub(crate) id: &'a str,
}

impl<'a> QueueArn<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (region, account, resource) = split(text)?;
        Some(Self { region, account, id: named(resource, "queue/")? })
    }
}

/// Region, account, and what is behind them.
fn split(text: &str) -> Option<(&str, &str, &str)> {
    let mut parts = text.splitn(6, ':');
    let (arn, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (region, account) = (parts.next()?, parts.next()?);
    let is_kinesis = arn == "arn" && partition.starts_with("aws") && service == "kinesis";
    (is_kinesis && is_account(account)).then_some((region, account, parts.next()?))
}

/// What follows the kind of a resource, if it is of that kind.
fn named<'a>(resource: &'a str, kind: &str) -> Option<&'a str> {
    resource.strip_prefix(kind).filter(|name| !name.is_empty() && !name.contains(char::is_whitespace))
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

pub(crate) fn is_queue(text: &str) -> bool {
    QueueArn::parse(text).is_some()
}

/// Whether it is of something that has tags and policies with the service: channels, which are not here, have them too.
pub(crate) fn is_resource(text: &str) -> bool {
    let is_channel = || split(text).is_some_and(|(.., resource)| named(resource, "channel/").is_some());
    is_stream(text) || is_queue(text) || is_channel()
}

pub(crate) fn of_stream(region: &str, account: &str, name: &str) -> String {
    of_resource(region, account, &format!("stream/{name}"))
}

pub(crate) fn of_queue(region: &str, account: &str, id: i64) -> String {
    of_resource(region, account, &format!("queue/{id}"))
}

/// Partitions go by the names of their regions.
fn of_resource(region: &str, account: &str, resource: &str) -> String {
    let partition = match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    };
    format!("arn:{partition}:kinesis:{region}:{account}:{resource}")
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
        let queue = of_queue("us-east-1", "000000000000", 1_795_408_017);
        assert_eq!(queue, "arn:aws:kinesis:us-east-1:000000000000:queue/1795408017");
        assert_eq!(QueueArn::parse(&queue).map(|arn| arn.id), Some("1795408017"));
        assert!(is_queue(&queue) && is_resource(&queue) && !is_stream(&queue) && !is_queue(&stream));
        assert!(is_resource(&consumer) && is_resource(&queue.replace("queue", "channel")));
        assert!(
            !is_resource(&queue.replace("queue", "topic")) && !is_queue("arn:aws:kinesis:r:000000000000:queue/")
        );
    }
}
