//! The network that a request comes from: the grain at which strangers are counted. It is never stored or logged.

use std::net::IpAddr;

/// An IPv4 /24 or an IPv6 /48: about what one customer of a provider holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network([u8; 7]);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let mut prefix = [0; 7];
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                prefix[0] = 4;
                prefix[1..4].copy_from_slice(&v4.octets()[..3]);
            }
            IpAddr::V6(v6) => {
                prefix[0] = 6;
                prefix[1..].copy_from_slice(&v6.octets()[..6]);
            }
        }
        Self(prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_a_network() {
        let of = |text: &str| Network::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("192.0.2.1"), of("192.0.2.254"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.9"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:ffff::2"));
        assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
    }
}
