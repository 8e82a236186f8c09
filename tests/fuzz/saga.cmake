skald_fuzz(saga_def)
