"""How values are spelled, as far as a pattern can say it: for readers of the document and for who tests against it.

Nothing is enforced here. The parsers of `policy` do that, with a sentence of their own for each mistake; a pattern
admits whatever they do, and some of what they refuse.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

_SPAN = r"[0-9]{0,10}[A-Za-z]+"
_MONTHS = r"(0[1-9]|1[0-2])"
_YEARS = r"(19[7-9][0-9]|[2-8][0-9]{3}|9[0-8][0-9]{2}|99[0-8][0-9]|999[0-8])"


def _spelled(pattern: str, *examples: str) -> Meta:
    return Meta(
        extra_json_schema={"pattern": pattern, "examples": list(examples)} if examples else {"pattern": pattern}
    )


Slug = Annotated[str, _spelled(r"^[a-z0-9][a-z0-9-]{0,62}$", "orders")]
PlanName = Annotated[str, _spelled(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", "starter")]
ClientName = Annotated[str, _spelled(r"^[A-Za-z0-9._~:+/=@-]{1,128}$", "kiosk-7")]
DisplayName = Annotated[str, Meta(extra_json_schema={"maxLength": 200, "examples": ["Orders of the shop"]})]
Currency = Annotated[str, _spelled(r"^[A-Z]{3}$", "EUR")]
TimeZone = Annotated[
    str, _spelled(r"^[A-Za-z][A-Za-z0-9_+-]{0,31}(/[A-Za-z][A-Za-z0-9_+-]{0,31}){0,2}$", "Europe/Berlin")
]
_COUNT = r"\s*[0-9]{1,15}[kKMG]?"
Rate = Annotated[str, _spelled(rf"^{_COUNT}\s*/\s*{_SPAN}\s*( burst {_COUNT})?\s*$", "60/min", "10/s burst 20")]
Price = Annotated[str, _spelled(r"^\s*[0-9]+(\.[0-9]+)?\s*$", "0.001")]
Amount = Annotated[str, _spelled(r"^\s*-?[0-9]+(\.[0-9]+)?\s*$", "12.50")]
Spend = Annotated[str, _spelled(r"^\s*[0-9]+(\.[0-9]+)?\s*$", "100")]
CountText = Annotated[str, _spelled(r"^\s*[0-9]{1,15}[kKMG]?\s*$", "100k")]
QuotaText = Annotated[str, _spelled(r"^\s*[0-9]{1,15}[kKMG]?\s*(/\s*(month|mo|months)\s*)?$", "10000/month", "10k")]
Duration = Annotated[str, _spelled(rf"^\s*(0|{_SPAN})\s*$", "24h")]
Moment = Annotated[str, _spelled(r"^\s*[0-9][0-9TWZtz:.,+ -]{7,40}\s*$", "2026-09-01", "2026-09-01T12:00:00Z")]
Expiry = Annotated[str, _spelled(rf"^\s*({_SPAN}|[0-9][0-9TWZtz:.,+ -]{{7,40}})\s*$", "90d", "2027-01-01")]
Period = Annotated[
    str, _spelled(rf"^(this-month|last-month|{_YEARS}-{_MONTHS}(\.[1-9][0-9]{{0,3}})?)$", "2026-09", "this-month")
]
TargetUrl = Annotated[str, _spelled(r"^[\x21-\x7e]{6,2048}$", "http://127.0.0.1:8001")]
Path = Annotated[str, _spelled(r"^/[A-Za-z0-9/._~!$&'()*+,;=:@-]{0,1023}$", "/orders")]
Pattern = Annotated[str, _spelled(r"^/[A-Za-z0-9/._~!$&'()*+,;=:@{}-]*$", "/v1/users/{id}")]
HeaderName = Annotated[str, _spelled(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$", "X-API-Key")]
StatusText = Annotated[str, _spelled(r"^[1-5](xx|[0-9][0-9])$", "5xx", "404")]
StatusTexts = Annotated[str, _spelled(r"^[1-5](xx|[0-9][0-9])(,[1-5](xx|[0-9][0-9]))*$", "5xx,429")]
Cursor = Annotated[str, _spelled(r"^[0-9]{1,18}$")]
Dimensions = Annotated[str, _spelled(r"^(,*(tenant|service|route|key|client|status))*,*$", "service,key")]
RefusalsText = Annotated[str, _spelled(r"^\s*[0-9]{1,15}[kKMG]?\s*(/\s*(min|m|minute|1m|60s)\s*)?$", "100/min")]
LabelFilter = Annotated[str, _spelled(r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}(=[^\x00-\x1f]{0,200})?$", "team", "team=a")]
# A whole key is a secret, and refused where its name is meant.
NOT_WHOLE = {"not": {"pattern": "^gw_[a-z0-9]{8}_."}}
KeyRef = Annotated[str, Meta(extra_json_schema=NOT_WHOLE)]
