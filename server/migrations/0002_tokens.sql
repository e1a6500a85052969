-- Which profile drew its token for which round. Neither a time nor an address stands beside a profile, and what no
-- longer counts is deleted. `profile` and `blinded` are SHA-256 digests: of the credential or the voucher's subject,
-- and of the element that was evaluated.
CREATE TABLE draws (
    library TEXT NOT NULL,
    task TEXT NOT NULL,
    profile BLOB NOT NULL,
    round INTEGER NOT NULL,
    blinded BLOB NOT NULL,
    PRIMARY KEY (library, task, profile, round),
    FOREIGN KEY (library, task, round) REFERENCES rounds (library, task, round)
) STRICT, WITHOUT ROWID;
