-- What a release measured beside its update, JSON: [{"kind", "value", "deviation"}]; noised like the update.
ALTER TABLE rounds ADD COLUMN measured TEXT;

-- The clip norm that measured quantiles have led to; NULL: the descriptor's.
ALTER TABLE tasks ADD COLUMN clip_norm REAL;

-- What the release gate found on public held-out data, JSON; NULL where the library has none.
ALTER TABLE patch_versions ADD COLUMN evaluation TEXT;

-- Digests of a task's public held-out inputs and targets, JSON; NULL where it has none.
ALTER TABLE tasks ADD COLUMN evaluation TEXT;

-- The ledger also takes the debits of experiments: one randomised report of each device.
CREATE TABLE ledger_of_all (
    sequence INTEGER PRIMARY KEY CHECK (sequence > 0),
    at INTEGER NOT NULL,
    task TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('reserve', 'noise', 'publish', 'lose', 'report')),
    round INTEGER NOT NULL,
    rho INTEGER NOT NULL,
    cumulative_rho INTEGER NOT NULL,
    detail TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
INSERT INTO ledger_of_all SELECT sequence, at, task, kind, round, rho, cumulative_rho, detail, previous, hash FROM ledger;
DROP TABLE ledger;
ALTER TABLE ledger_of_all RENAME TO ledger;
CREATE INDEX ledger_by_task ON ledger (task, kind);
CREATE TRIGGER ledger_update BEFORE UPDATE ON ledger BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END;
CREATE TRIGGER ledger_delete BEFORE DELETE ON ledger BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END;
