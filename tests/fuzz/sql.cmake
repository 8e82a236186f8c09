skald_fuzz(pgoutput)
