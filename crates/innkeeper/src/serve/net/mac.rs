//! MAC addresses: as users write them, and one that stays the same.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use devices::net::Mac;

/// First byte of an address that somebody has chosen for one machine (IEEE 802: locally administered, unicast).
const LOCAL: u8 = 0x02;

/// Reads an address such as `52:54:00:12:34:56`.
pub(super) fn parse(text: &str) -> Result<Mac, String> {
    let wrong = || format!("{text} is no MAC address: give six bytes in hexadecimal, such as 52:54:00:12:34:56");
    let byte = |part: &str| match part.len() {
        2 if part.bytes().all(|digit| digit.is_ascii_hexdigit()) => u8::from_str_radix(part, 16).ok(),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = text.split([':', '-']).map(byte).collect();
    let mac: Mac = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)?;
    if mac[0] & 1 != 0 || mac == [0; 6] {
        return Err(format!(
            "{text} is no address of one machine: the first byte must be even, and not all 0"
        ));
    }
    Ok(mac)
}

/// An address for the device at `path`: the same each time, and another one on other hosts, so that two guests of one network hardly share
/// it.
pub(super) fn of(path: &Path) -> Mac {
    let host = std::fs::read("/etc/machine-id").unwrap_or_default();
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    from(&[&host, path.as_os_str().as_bytes()])
}

fn from(parts: &[&[u8]]) -> Mac {
    // FNV-1a, of 64 bits.
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = parts.concat().iter().fold(0xcbf2_9ce4_8422_2325, step);
    let [a, b, c, d, e, ..] = (hash ^ hash >> 40).to_le_bytes();
    [LOCAL, a, b, c, d, e]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_six_bytes_of_one_machine() {
        assert_eq!(parse("52:54:00:12:34:5f"), Ok([0x52, 0x54, 0, 0x12, 0x34, 0x5f]));
        assert_eq!(parse("52-54-00-12-34-5F"), Ok([0x52, 0x54, 0, 0x12, 0x34, 0x5f]));
        for wrong in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:0:12:34:56",
            "+2:54:00:12:34:56",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_stays_the_same_and_differs_by_host_and_path() {
        let mac = from(&[b"host", b"/path"]);
        assert_eq!(mac, from(&[b"host", b"/path"]));
        assert_ne!(mac, from(&[b"host", b"/path2"]));
        assert_ne!(mac, from(&[b"other", b"/path"]));
        assert_eq!(mac[0] & 3, 2);
    }
}
