"""The domains of the generated databases: five for training and validation, two that only ``valid_unseen`` shows."""

from turnwise_envs.sql.domains.airline import AIRLINE
from turnwise_envs.sql.domains.clinic import CLINIC
from turnwise_envs.sql.domains.company import COMPANY
from turnwise_envs.sql.domains.festival import FESTIVAL
from turnwise_envs.sql.domains.library import LIBRARY
from turnwise_envs.sql.domains.shop import SHOP
from turnwise_envs.sql.domains.university import UNIVERSITY

SEEN = (SHOP, UNIVERSITY, CLINIC, COMPANY, AIRLINE)
UNSEEN = (LIBRARY, FESTIVAL)
DOMAINS = {domain.name: domain for domain in SEEN + UNSEEN}

__all__ = ["DOMAINS", "SEEN", "UNSEEN"]
