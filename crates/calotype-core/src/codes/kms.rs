//! The error codes of the KMS API: those that this service gives.
//!
//! Source: OTC's API reference of the key management service, appendix "Error Codes". The messages are this service's
//! own; token faults have the status that clients log in again on (docs/api-compatibility.md).

use std::fmt;

/// A code of the KMS API's error envelope, such as `KMS.0207`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KmsCode(u16);

struct Row {
    code: KmsCode,
    status: u16,
    message: &'static str,
}

impl KmsCode {
    /// The code's message.
    pub fn message(self) -> &'static str {
        self.row().map_or("", |row| row.message)
    }

    /// The code's HTTP status.
    pub fn status(self) -> u16 {
        self.row().map_or(400, |row| row.status)
    }

    fn row(self) -> Option<&'static Row> {
        let at = TABLE.binary_search_by_key(&self, |row| row.code).ok()?;
        TABLE.get(at)
    }
}

impl fmt::Display for KmsCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KMS.{:04}", self.0)
    }
}

impl fmt::Debug for KmsCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! codes {
    ($($name:ident = $number:literal, $status:literal, $message:literal;)*) => {
        impl KmsCode {
            $(#[doc = $message] pub const $name: Self = Self($number);)*
        }

        const TABLE: &[Row] = &[
            $(Row { code: KmsCode::$name, status: $status, message: $message },)*
        ];
    };
}

codes! {
    KMS_0101 = 101, 500, "The key service had a fault.";
    KMS_0104 = 104, 503, "The key service can't answer now.";
    KMS_0201 = 201, 404, "The URL names nothing.";
    KMS_0202 = 202, 400, "The request's body is not a JSON object.";
    KMS_0203 = 203, 400, "The request's body is too long.";
    KMS_0204 = 204, 400, "A field that must be there is missing.";
    KMS_0205 = 205, 400, "The key id is malformed.";
    KMS_0206 = 206, 400, "The sequence has 36 characters.";
    KMS_0207 = 207, 404, "There is no such key.";
    KMS_0208 = 208, 400, "The encryption context is malformed.";
    KMS_0209 = 209, 400, "The key is disabled.";
    KMS_0210 = 210, 400, "The key is waiting to be deleted.";
    KMS_0214 = 214, 400, "The request is malformed.";
    KMS_0215 = 215, 405, "The method is not allowed here.";
    KMS_0301 = 301, 401, "The request has no token.";
    KMS_0302 = 302, 401, "The token is not valid.";
    KMS_0306 = 306, 403, "The key is not yours to use for this.";
    KMS_0307 = 307, 403, "Your roles do not permit this.";
    KMS_0308 = 308, 400, "A parameter is invalid.";
    KMS_0313 = 313, 400, "The key's rotation is off.";
    KMS_0321 = 321, 403, "The project in the URL is not the credential's.";
    KMS_0340 = 340, 400, "This key store does not offer that.";
    KMS_0401 = 401, 400, "The list of tags is empty.";
    KMS_0404 = 404, 400, "The action is not one of those that there are.";
    KMS_0405 = 405, 400, "A tag's value is malformed.";
    KMS_0406 = 406, 400, "A tag's key is malformed.";
    KMS_0409 = 409, 400, "The key would have too many tags.";
    KMS_0410 = 410, 400, "A tag's value is too long.";
    KMS_0411 = 411, 400, "A tag's key is empty or too long.";
    KMS_0412 = 412, 400, "The list of tags is malformed.";
    KMS_0415 = 415, 400, "The list of matches is malformed.";
    KMS_0416 = 416, 404, "The key has no such tag.";
    KMS_0417 = 417, 400, "The offset is malformed.";
    KMS_0418 = 418, 400, "This action takes no offset.";
    KMS_1101 = 1101, 400, "A key's alias has 1 to 255 letters, digits and characters of : / _ -, and does not end in /default.";
    KMS_1102 = 1102, 400, "The realm is malformed.";
    KMS_1103 = 1103, 400, "A key's description has at most 255 characters.";
    KMS_1104 = 1104, 400, "The alias is another key's.";
    KMS_1105 = 1105, 400, "The project can have no more keys.";
    KMS_1110 = 1110, 400, "Keys are of the kind AES_256 only.";
    KMS_1201 = 1201, 400, "Only a disabled key can be enabled.";
    KMS_1301 = 1301, 400, "Only an enabled key can be disabled.";
    KMS_1401 = 1401, 400, "A deletion is scheduled 7 to 1096 days ahead.";
    KMS_1402 = 1402, 400, "The key's deletion is scheduled already.";
    KMS_1501 = 1501, 400, "The key's deletion is not scheduled.";
    KMS_1601 = 1601, 400, "The limit is malformed.";
    KMS_1602 = 1602, 400, "The marker is malformed.";
    KMS_1801 = 1801, 400, "The length of random data is not one that can be asked for.";
    KMS_1802 = 1802, 400, "The length of random data is a multiple of 8 bits.";
    KMS_1901 = 1901, 400, "A data key has 8 to 8192 bits.";
    KMS_1902 = 1902, 400, "A data key's kind is AES_256 or AES_128.";
    KMS_1903 = 1903, 400, "A data key's length is a multiple of 8 bits.";
    KMS_2001 = 2001, 400, "A data key has 512 bits.";
    KMS_2101 = 2101, 400, "The plain text is malformed.";
    KMS_2102 = 2102, 400, "The length of the data key is not one that can be encrypted.";
    KMS_2103 = 2103, 400, "The data key's digest is wrong.";
    KMS_2104 = 2104, 400, "The plain text is not as long as was said.";
    KMS_2201 = 2201, 400, "The cipher text is not one of this key and context.";
    KMS_2202 = 2202, 400, "The length of the data key is not one that can be decrypted.";
    KMS_2204 = 2204, 400, "The data key is not as long as was said.";
    KMS_2401 = 2401, 400, "A grant can't be for create-grant alone.";
    KMS_2402 = 2402, 400, "A principal has 1 to 64 letters and digits.";
    KMS_2404 = 2404, 400, "The key can have no more grants.";
    KMS_2501 = 2501, 400, "There is no such grant.";
    KMS_2502 = 2502, 400, "The grant is another key's.";
    KMS_2901 = 2901, 400, "The key's rotation is on already.";
    KMS_3001 = 3001, 400, "A key is rotated every 30 to 365 days.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_ascends_and_each_code_has_a_status_and_a_message() {
        assert!(TABLE.is_sorted_by_key(|row| row.code));
        for row in TABLE {
            assert!((400..=503).contains(&row.code.status()), "{}", row.code);
            assert!(row.code.message().ends_with('.'), "{}", row.code);
        }
        assert_eq!(KmsCode::KMS_0207.to_string(), "KMS.0207");
        assert_eq!(KmsCode::KMS_0207.status(), 404);
    }
}
