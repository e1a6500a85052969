//! What makes a profile: a browser's own word, at so many an hour from one network, or the voucher of the site's login.

use std::num::NonZeroU32;

use backstitch_onnx::Digest;
use backstitch_protocol::Problem;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;
use backstitch_protocol::token::TokenRequest;
use ed25519_dalek::{Signature, VerifyingKey};
use governor::clock::Clock as _;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::network::Network;
use crate::config;
use crate::failure::Result;

/// Separates the signatures of a site's login from all others.
const VOUCHER_LABEL: &str = "backstitch voucher v1";

/// Longest name of a person in a voucher.
const SUBJECT_BYTES: usize = 128;

/// Admits new profiles.
pub struct Enrolment {
    voucher_key: Option<VerifyingKey>,
    quota: Option<DefaultKeyedRateLimiter<Network>>,
}

impl Enrolment {
    /// As configured.
    pub fn of(config: &config::Enrolment) -> Result<Self> {
        let quota = NonZeroU32::new(config.per_network_per_hour).map(Quota::per_hour);
        Ok(Self { voucher_key: config.voucher_key()?, quota: quota.map(RateLimiter::keyed) })
    }

    /// Who asks: the person whom the voucher names, or, where no vouchers are asked for, the bearer of a credential.
    /// A person is one profile on however many devices.
    pub(super) fn profile(
        &self,
        library: &Name,
        request: &TokenRequest,
        now: u64,
    ) -> Result<Digest> {
        match (&self.voucher_key, &request.voucher) {
            (None, _) => Ok(request.profile.digest()),
            (Some(key), Some(voucher)) => subject(key, library, voucher, now)
                .map(|subject| Digest::of(format!("subject\0{subject}").as_bytes())),
            (Some(_), None) => Err(Problem::new(
                Code::EnrolmentRefused,
                "this server takes contributions of signed-in people",
            )
            .with_hint("pass the voucher of your site's login to open()")),
        }
    }

    /// Lets one more profile in from this network, or refuses.
    pub(super) fn admit(&self, network: Network) -> Result<()> {
        let Some(quota) = &self.quota else { return Ok(()) };
        quota.retain_recent();
        quota.check_key(&network).map_err(|until| {
            let wait = until.wait_time_from(quota.clock().now()).as_secs() + 1;
            let most = until.quota().burst_size();
            let detail =
                format!("too many new profiles come from this network: {most} in an hour at most");
            Problem::new(Code::EnrolmentRefused, detail).with_hint(format!("try again in {wait} s"))
        })
    }
}

/// The person whom a voucher names: `<subject>.<expires_at>.<hex signature>`, signed by the site over the label, the
/// library, the subject and the expiry, one a line.
fn subject<'a>(key: &VerifyingKey, library: &Name, voucher: &'a str, now: u64) -> Result<&'a str> {
    let refused = |what: &str| Problem::new(Code::EnrolmentRefused, format!("the voucher {what}"));
    let parts: Vec<&str> = voucher.split('.').collect();
    let [subject, expires_at, signature] = parts.as_slice() else {
        return Err(refused("is not <subject>.<expires_at>.<signature>"));
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !(1..=SUBJECT_BYTES).contains(&subject.len()) || !subject.chars().all(plain) {
        return Err(refused("names nobody: 1 to 128 of A-Z, a-z, 0-9, - and _"));
    }
    let mut bytes = [0; 64];
    hex::decode_to_slice(signature, &mut bytes).map_err(|_| refused("is not signed"))?;
    let message = format!("{VOUCHER_LABEL}\n{library}\n{subject}\n{expires_at}");
    key.verify_strict(message.as_bytes(), &Signature::from_bytes(&bytes))
        .map_err(|_| refused("is not signed by the site's key"))?;
    match expires_at.parse::<u64>() {
        Ok(expires_at) if now < expires_at => Ok(subject),
        _ => Err(refused("has expired").with_hint("ask the site for a new one")),
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    #[test]
    fn vouchers_name_a_person_for_a_while() {
        let site = SigningKey::from_bytes(&[3; 32]);
        let library = Name::new("fashion").unwrap();
        let voucher = |subject: &str, library: &str, expires_at: u64| {
            let message = format!("{VOUCHER_LABEL}\n{library}\n{subject}\n{expires_at}");
            let signature = hex::encode(site.sign(message.as_bytes()).to_bytes());
            format!("{subject}.{expires_at}.{signature}")
        };
        let read = |voucher: &str| {
            subject(&site.verifying_key(), &library, voucher, 1000).map(str::to_owned)
        };
        assert_eq!(read(&voucher("u-1", "fashion", 1001)).unwrap(), "u-1");
        let good = voucher("u-1", "fashion", 1001);
        let bad = [
            voucher("u-1", "fashion", 1000),
            voucher("u-1", "other", 1001),
            voucher("u 1", "fashion", 1001),
            voucher("", "fashion", 1001),
            good.replace("u-1", "u-2"),
            good.replace("1001", "9999"),
            format!("{good}.x"),
            String::new(),
        ];
        for voucher in bad {
            assert!(read(&voucher).unwrap_err().is(Code::EnrolmentRefused), "{voucher}");
        }
    }

    #[test]
    fn a_network_brings_so_many_profiles_an_hour() {
        let config = config::Enrolment { per_network_per_hour: 3, ..Default::default() };
        let enrolment = Enrolment::of(&config).unwrap();
        let network = |last| Network::from(std::net::IpAddr::from([192, 0, last, 1]));
        assert!((0..3).all(|_| enrolment.admit(network(1)).is_ok()));
        let refused = enrolment.admit(network(1)).unwrap_err();
        assert!(refused.is(Code::EnrolmentRefused) && refused.detail().contains("3 in an hour"));
        let wait: u64 = refused.hint().unwrap().split(' ').nth(3).unwrap().parse().unwrap();
        assert!((1100..=1201).contains(&wait), "one every twenty minutes: {refused}");
        assert!(enrolment.admit(network(2)).is_ok(), "others are not held up");
    }
}
