"""Published files as data: the table of them, download, reading, our one-file form."""
