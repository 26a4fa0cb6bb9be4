-- What commits have told, the last of them, each thing once: other processes on the file read here what
-- concerns them. Numbers grow; the table is small, so it has no index by them.
CREATE TABLE notice (
    kind    TEXT NOT NULL,
    subject TEXT NOT NULL,
    number  INTEGER NOT NULL,
    PRIMARY KEY (kind, subject)
) WITHOUT ROWID;
