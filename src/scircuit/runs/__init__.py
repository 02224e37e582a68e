"""The road from cells to a report, stage by stage; thin, no science inside."""
