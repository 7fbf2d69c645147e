"""Passwords, keys and signatures in addresses: taken out of everything that is said or written."""

import re

MASK = "***"
_USER = re.compile(r"\b([a-zA-Z][a-zA-Z0-9+.-]*:/{1,3})[^/@\s\"'<>]+@")
"""`scheme://user:secret@`, also after a path has lost slashes (`s3:/key:secret@bucket`)."""
_SECRET = (
    "sig|signature|token|access_token|auth|api_?key|apikey|key|password|passwd|pwd|secret|credential|credentials|"
    "awsaccesskeyid|client_secret|sas|x-(?:amz|goog)-(?:signature|credential|security-token)"
)
_QUERY = re.compile(rf"([?&;#](?:{_SECRET})=)[^&;#\s\"'<>]*[^&;#\s\"'<>:,.]", re.IGNORECASE)
"""`?X-Amz-Signature=...`, `&sig=...`, `#token=...`."""


def masked(text: str) -> str:
    """The text with what identifies its user in addresses replaced by `***`; addresses stay recognisable."""
    if ":/" not in text and "=" not in text:
        return text
    return _QUERY.sub(rf"\1{MASK}", _USER.sub(rf"\1{MASK}@", text))
